// Clients of EC2's instance metadata from npm against the emulator: the SDK's metadata client and its credentials.
//
//     ask.cjs REQUIRED OPTIONAL          the URLs of two emulators, by their http-tokens; at the first a notice is active
const assert = require('node:assert/strict');
const { createRequire } = require('node:module');
// The packages are installed in the working directory.
const installed = createRequire(process.cwd() + '/');
const { MetadataService } = installed('@aws-sdk/ec2-metadata-service');
const { fromInstanceMetadata } = installed('@smithy/credential-provider-imds');

const [required, optional] = process.argv.slice(2);
const ID = '/latest/meta-data/instance-id';

// It asks for "//latest/…": the path of its endpoint is a slash by itself.
async function metadata(endpoint) {
  const service = new MetadataService({ endpoint, retries: 0 });
  assert.equal(await service.request(ID, {}), 'i-0123456789abcdef0');
  assert.equal(await service.request('/latest/meta-data/placement/availability-zone', {}), 'us-east-1a');
  const document = JSON.parse(await service.request('/latest/dynamic/instance-identity/document', {}));
  assert.equal(document.region, 'us-east-1');
  await assert.rejects(service.request('/latest/meta-data/nothing', {}), /404/);
}

async function credentials(endpoint) {
  process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT = endpoint;
  const found = await fromInstanceMetadata({ timeout: 10_000 })();
  assert.equal(found.accessKeyId, 'ASIAEMULATED00000000');
  assert.ok(found.expiration > new Date());
}

async function main() {
  for (const url of [required, optional]) {
    await metadata(url);
    await metadata(url + '/');
    await credentials(url);
  }
  const action = await new MetadataService({ endpoint: required, retries: 0 }).request('/latest/meta-data/spot/instance-action', {});
  assert.equal(JSON.parse(action).action, 'terminate');
  // Without a session, as before IMDSv2.
  const old = (endpoint) => new MetadataService({ endpoint, retries: 0, disableFetchToken: true }).request(ID, {});
  assert.equal(await old(optional), 'i-0123456789abcdef0');
  await assert.rejects(old(required), /401/);
  console.log('the SDK for JavaScript: metadata with and without a session, credentials');
}

// The client leaves the bodies of errors unread, and their connections would keep the process for a minute.
main().then(() => process.exit(0));
