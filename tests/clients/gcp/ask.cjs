// Google's client of the metadata server from npm against the emulator, where GCE_METADATA_HOST says.
const assert = require('node:assert/strict');
const { createRequire } = require('node:module');
// The packages are installed in the working directory.
const gcp = createRequire(process.cwd() + '/')('gcp-metadata');

async function main() {
  assert.equal(await gcp.isAvailable(), true);
  // It is too large for a number, and no digit may be lost.
  assert.equal((await gcp.instance('id')).toString(), '9223372036854775807');
  assert.equal(await gcp.instance('zone'), 'projects/123456789012/zones/us-central1-a');
  assert.equal(await gcp.project('project-id'), 'emulated-project');
  assert.equal(await gcp.instance('preempted'), 'FALSE');
  const whole = await gcp.instance({ params: { recursive: true } });
  assert.equal(whole.id.toString(), '9223372036854775807');
  assert.equal(whole.scheduling.provisioningModel, 'SPOT');
  await assert.rejects(gcp.instance('nothing'), /404/);
  console.log('gcp-metadata: items, the whole machine, and an id without a digit lost');
}

main().then(() => process.exit(0));
