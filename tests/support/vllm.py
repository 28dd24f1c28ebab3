#!/usr/bin/env python3
"""A small stand-in for vLLM: streams answers for seconds, counts them in vLLM's gauges, and aborts them on SIGTERM, as
vLLM does unless it is told otherwise (--shutdown-timeout 0).

  POST /v1/completions   {"max_tokens": N, "stream": true}: N events at 50 ms each, then [DONE]
  GET  /metrics          vllm:num_requests_running and vllm:num_requests_waiting, among others
  GET  /health           200
  POST /play/TRICK       plays a trouble from now on: see `metrics`; or `deaf`, which listens no more and goes on answering;
                         `late` gauges are those of five seconds ago

usage: vllm.py PORT PORT_FILE PID_FILE [MAX_NUM_SEQS]     PORT 0 takes a free one, PORT_FILE says which
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = 0.05
LATE = 5.0
MODEL = "Qwen/Qwen2.5-7B-Instruct"

counting = threading.Lock()
running = 0
waiting = 0
served = 0
trick = ""
history = [(0.0, 0, 0)]
slots = threading.Semaphore(int(sys.argv[4]) if len(sys.argv) > 4 else 16)


def remember():
    history.append((time.monotonic(), running, waiting))


def metrics():
    labels = '{engine="0",model_name="%s"}' % MODEL
    with counting:
        values = running, waiting, served
        if trick == "late":
            then = time.monotonic() - LATE
            values = [it for it in history if it[0] <= then][-1][1:] + (served,)
    first, second = ("%.1f" % value for value in values[:2])
    if trick == "stuck":
        first = "3.0"
    elif trick == "nan":
        second = "NaN"
    lines = [
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{labels} {first}",
        "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.",
        "# TYPE vllm:num_requests_waiting gauge",
        f"vllm:num_requests_waiting{labels} {second}",
        "# HELP vllm:request_success_total Count of successfully processed requests.",
        "# TYPE vllm:request_success_total counter",
        f'vllm:request_success_total{{engine="0",finished_reason="length",model_name="{MODEL}"}} {values[2]}.0',
    ]
    if trick == "missing":
        lines = [line for line in lines if "num_requests_waiting" not in line]
    return "\n".join(lines) + "\n"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, kind="text/plain; version=0.0.4; charset=utf-8"):
        body = body.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            self.reply("")
        elif self.path != "/metrics":
            self.reply("not found", 404)
        elif trick == "html":
            self.reply("<html><body>captive portal</body></html>", kind="text/html")
        elif trick == "broken":
            self.reply("internal server error", 500)
        elif trick == "hang":
            time.sleep(3600)
        else:
            self.reply(metrics())

    def do_POST(self):
        global running, waiting, served, trick
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if self.path.startswith("/play/"):
            trick = self.path[len("/play/") :]
            self.reply("")
            if trick == "deaf":
                # As a server does that ends gracefully: nobody new, and everybody who is there is answered.
                server.shutdown()
                server.socket.close()
            return
        tokens = json.loads(body)["max_tokens"]
        with counting:
            waiting += 1
            remember()
        with slots:
            with counting:
                waiting -= 1
                running += 1
                remember()
            try:
                self.stream(tokens)
            finally:
                with counting:
                    running -= 1
                    served += 1
                    remember()

    def stream(self, tokens):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for number in range(tokens):
            time.sleep(TOKEN)
            self.wfile.write(b'data: {"choices":[{"text":" %d"}]}\n\n' % number)
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


def abort(*_):
    os._exit(0)


server = Server(("127.0.0.1", int(sys.argv[1])), Answers)
signal.signal(signal.SIGTERM, abort)
for path, number in ((sys.argv[3], os.getpid()), (sys.argv[2], server.server_port)):
    with open(path + ".new", "w") as file:
        file.write(f"{number}\n")
    os.rename(path + ".new", path)
server.serve_forever(poll_interval=0.05)
# Deaf: the answers that are still being given live in threads.
while True:
    with counting:
        if running == 0 and waiting == 0:
            break
    time.sleep(TOKEN)
