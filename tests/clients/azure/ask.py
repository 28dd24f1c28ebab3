"""OpenTelemetry's resource detector for Azure, from PyPI, against the emulator at the address that it has built in; and
Scheduled Events as Microsoft's documentation asks for them in Python, since there is no client of them."""

import json
import logging
import sys
import urllib.error
import urllib.request

from opentelemetry.resource.detector.azure.vm import AzureVMResourceDetector

# What goes wrong is logged, and an empty resource returned.
logging.basicConfig(level=logging.ERROR, stream=sys.stdout)
found = AzureVMResourceDetector().detect().attributes
assert (found["cloud.provider"], found["cloud.platform"]) == ("azure", "azure_vm"), found
assert (found["host.name"], found["cloud.region"]) == ("emulated-vm", "westus2"), found
assert found["host.id"] == "02aab8a4-74ef-476e-8182-f6d2ba4166a6", found

URL = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"


def ask(body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL, data, {"Metadata": "true"}), timeout=5) as response:
        text = response.read()
    return json.loads(text) if text else None


(event,) = ask()["Events"]
assert (event["EventType"], event["EventStatus"], event["Resources"]) == ("Preempt", "Scheduled", ["emulated-vm"]), event
acknowledgement = {"StartRequests": [{"EventId": event["EventId"]}]}
ask(acknowledgement)
(event,) = ask()["Events"]
assert (event["EventStatus"], event["NotBefore"]) == ("Started", ""), event
try:
    ask({"StartRequests": [{"EventId": "another"}]})
except urllib.error.HTTPError as error:
    assert error.code == 400, error
else:
    raise AssertionError("an event that does not stand was acknowledged")
print("opentelemetry-resource-detector-azure: the machine; Scheduled Events: read and acknowledged")
