"""Google's client of the metadata server from PyPI against the emulator, where GCE_METADATA_HOST says."""

import google.auth
from google.auth.compute_engine import _metadata
from google.auth.transport.requests import Request

request = Request()
assert _metadata.ping(request)
assert _metadata.get_project_id(request) == "emulated-project"
assert _metadata.get(request, "instance/id") in ("9223372036854775807", 9223372036854775807)
assert _metadata.get(request, "instance/preempted") == "FALSE"
account = _metadata.get_service_account_info(request)
assert account["email"].endswith("@emulated-project.iam.gserviceaccount.com"), account
credentials, project = google.auth.default()
credentials.refresh(request)
assert (project, credentials.token) == ("emulated-project", "emulated-and-good-for-nothing"), (project, vars(credentials))
print("google-auth: project, service account and a token")
