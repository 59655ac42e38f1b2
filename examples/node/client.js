// Adds a text, watches the work on it, and searches.
// MEMORO_ENDPOINT and MEMORO_API_KEY say where and who; `memoro dev` prints both.
'use strict';

const crypto = require('node:crypto');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTOS = process.env.MEMORO_PROTOS || path.join(__dirname, '..', '..', 'protos');
const ENDPOINT = process.env.MEMORO_ENDPOINT || '127.0.0.1:50051';
const USER = 'node-example';

const definition = protoLoader.loadSync(['memoro/v1/memory_service.proto', 'memoro/v1/jobs_service.proto'], {
  includeDirs: [PROTOS],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { memoro } = grpc.loadPackageDefinition(definition);

// Calls that only read, or that carry a request id, may be repeated when the server can't be reached.
const retries = {
  'grpc.service_config': JSON.stringify({
    methodConfig: [
      {
        name: [{ service: 'memoro.v1.MemoryService' }],
        retryPolicy: {
          maxAttempts: 5,
          initialBackoff: '0.2s',
          maxBackoff: '3s',
          backoffMultiplier: 2,
          retryableStatusCodes: ['UNAVAILABLE'],
        },
      },
    ],
  }),
};
const credentials = grpc.credentials.createInsecure();
const memories = new memoro.v1.MemoryService(ENDPOINT, credentials, retries);
const jobs = new memoro.v1.JobsService(ENDPOINT, credentials);

const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${process.env.MEMORO_API_KEY || ''}`);

/** One call with an answer, within ten seconds. */
function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline: Date.now() + 10_000 }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

/** A job's updates to its end; a stream that breaks is taken up again with its last token. */
async function* watch(jobId) {
  let token = '';
  let failures = 0;
  for (;;) {
    const stream = jobs.WatchJob({ job_id: jobId, resume_token: token }, metadata);
    try {
      for await (const message of stream) {
        token = message.resume_token;
        failures = 0;
        if (message.event !== 'heartbeat') yield message[message.event];
      }
      return;
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE || ++failures > 10) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** failures));
    } finally {
      stream.cancel();
    }
  }
}

async function main() {
  const created = await call(memories, 'CreateMemory', {
    // Repeating the call with the same id stores nothing twice.
    request_id: crypto.randomUUID(),
    user_id: USER,
    text: 'John Doe bought an iPhone 15 from Apple Store. He works at TechCorp.',
    metadata: { fields: { source: { stringValue: 'node' } } },
  });
  console.log(`stored ${created.memory.id}`);

  let state;
  for await (const update of watch(created.job.id)) {
    state = update.state;
    // The first update is a snapshot, with all stages as they stand; the others tell of the stage that moved.
    for (const { stage, status } of update.stages || (update.stage ? [update.stage] : [])) {
      console.log(`  ${stage}: ${status}`);
    }
  }
  console.log(`job ${created.job.id}: ${state}`);
  if (state !== 'JOB_STATE_SUCCEEDED') throw new Error('the job did not succeed');

  const found = await call(memories, 'SearchMemories', { user_id: USER, query: 'Who has a new phone?', page_size: 3 });
  for (const hit of found.hits) console.log(`${hit.score.toFixed(2)} ${hit.memory.text}`);
}

main()
  .catch((error) => {
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  })
  .finally(() => {
    memories.close();
    jobs.close();
  });
