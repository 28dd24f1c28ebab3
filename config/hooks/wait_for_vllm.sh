#!/bin/bash
# Waits until vLLM has no request left, then writes the file that vLLM's preStop waits for.
#
#   VLLM_METRICS   host:port of vLLM's metrics: 127.0.0.1:8000 (default)
#   DRAINED_FILE   what to write: /drain/drained (default)
#   SETTLE         seconds for the load balancer to stop sending before zero is believed: 8 (default)
#
# bash, because its /dev/tcp asks one plain HTTP question without curl: the image stays small.
set -eu

metrics=${VLLM_METRICS:-127.0.0.1:8000}
drained=${DRAINED_FILE:-/drain/drained}
began=$SECONDS
give_up=$((began + ${SPOT_SECONDS_LEFT:-60} - 4))
settled=$((began + ${SETTLE:-8}))

# Prints the requests running and waiting, over all models and engines; nothing where vLLM did not say.
open_requests() {
    # shellcheck disable=SC2016  # the inner bash expands it
    HOST=${metrics%:*} PORT=${metrics##*:} timeout 2 bash -c '
        exec 3<>"/dev/tcp/$HOST/$PORT"
        printf "GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n" "$HOST" >&3
        head -c 8388608 <&3' 2>/dev/null |
        awk '
            /^HTTP\/1\.[01] 200/ { good = 1 }
            /^vllm:num_requests_(running|waiting)[{ ]/ { open += $NF; seen[$1 ~ /running/] = 1 }
            END { if (good && (0 in seen) && (1 in seen)) print int(open + 0.5) }'
}

# In a rehearsal the load balancer goes on sending: zero may never come, and nobody may be told that it did.
if [ "${SPOT_REHEARSAL:-}" = 1 ]; then
    open=$(open_requests || true)
    echo "requests open: ${open:-unknown, vLLM does not answer on $metrics}"
    [ -n "$open" ] || exit 1
    exit 0
fi

rm -f "$drained"

# Two zeros in a row: between them a request that was being handed over would have shown.
zeros=0
last=
while [ "$zeros" -lt 2 ]; do
    if [ "$SECONDS" -ge "$give_up" ]; then
        echo "vLLM still has ${last:-an unknown number of} requests after $((SECONDS - began)) s" >&2
        exit 1
    fi
    sleep 0.5
    open=$(open_requests || true)
    if [ "$open" != "$last" ]; then echo "requests open: ${open:-unknown, vLLM does not answer on $metrics}"; fi
    last=$open
    if [ "$open" = 0 ] && [ "$SECONDS" -ge "$settled" ]; then zeros=$((zeros + 1)); else zeros=0; fi
done

: >"$drained"
echo "drained after $((SECONDS - began)) s"
