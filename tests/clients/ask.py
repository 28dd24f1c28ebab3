"""Clients of EC2's instance metadata from PyPI against the emulator: botocore's region and credentials, and all that
ec2-metadata knows to ask.

    ask.py REQUIRED OPTIONAL          the URLs of two emulators, by their http-tokens; at the first a notice is active
"""

import sys

import urllib3
from botocore.config import Config
from botocore.session import Session
from botocore.utils import IMDSRegionProvider
from ec2_metadata import EC2Metadata, NetworkInterface

REQUIRED, OPTIONAL = sys.argv[1:]
ID, ZONE = "i-0123456789abcdef0", "us-east-1a"


def botocore(endpoint):
    session = Session()
    session.set_config_variable("ec2_metadata_service_endpoint", endpoint)
    region = IMDSRegionProvider(session).provide()
    assert region == "us-east-1", region
    credentials = session.get_credentials()
    assert (credentials.method, credentials.access_key) == ("iam-role", "ASIAEMULATED00000000"), vars(credentials)
    # A client is made and signs with them; what it would ask is no more than written down.
    client = session.create_client("sts", region, config=Config(retries={"max_attempts": 0}))
    url = client.generate_presigned_url("get_caller_identity")
    assert "X-Amz-Credential=ASIAEMULATED00000000" in url, url


def properties(of):
    """Each property of a client, read: none may fail."""
    names = [name for name in dir(type(of)) if not name.startswith("_") and not callable(getattr(type(of), name))]
    return {name: getattr(of, name) for name in names if name != "parent"}


def ec2_metadata(base):
    client = EC2Metadata(urllib3.PoolManager(retries=False))
    client.service_url = f"{base}/latest/"
    client.dynamic_url = f"{client.service_url}dynamic/"
    client.metadata_url = f"{client.service_url}meta-data/"
    client.userdata_url = f"{client.service_url}user-data/"
    told = properties(client)
    for name, wanted in {
        "account_id": "123456789012", "instance_id": ID, "availability_zone": ZONE, "region": "us-east-1",
        "instance_profile_name": "emulated", "instance_life_cycle": "spot", "public_ipv4": None, "public_keys": {},
        "tags": {"Name": "emulated"}, "security_groups": ["default"], "user_data": None,
    }.items():
        assert told[name] == wanted, (name, told[name])
    [(mac, interface)] = told["network_interfaces"].items()
    assert mac == told["mac"] and isinstance(interface, NetworkInterface)
    interface = properties(interface)
    assert interface["private_ipv4s"] == [told["private_ipv4"]], interface
    assert (interface["public_ipv4s"], interface["device_number"]) == ([], 0), interface
    return told


for url in [REQUIRED, OPTIONAL]:
    for slashes in ["", "/"]:
        botocore(url + slashes)
print("botocore: region and credentials")
action = ec2_metadata(REQUIRED)["spot_instance_action"]
assert action.action == "terminate" and action.time.tzinfo, vars(action)
assert ec2_metadata(OPTIONAL)["spot_instance_action"] is None
print("ec2-metadata: every property of the machine and of its interface")
