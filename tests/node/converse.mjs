// Holds one conversation with a gateway, knowing nothing but protos/.
//
//   node converse.mjs ADDRESS PROTOS [MODALITY...]
//
// Start, append, revise, commit; each event is printed as a line of JSON (bytes as their length). Exit code 0
// when the turn ends by itself ("STOP" or "LENGTH"), 1 otherwise.

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address, protos, ...modalities] = process.argv.slice(2);
const ENDED_WELL = new Set(["FINISH_REASON_STOP", "FINISH_REASON_LENGTH"]);

const definition = loadSync("upbeat/v1/gateway.proto", {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: Number,
  oneofs: true,
});
const { ConversationService } = grpc.loadPackageDefinition(definition).upbeat.v1;

function plain(value) {
  if (value instanceof Uint8Array) return value.length;
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

const client = new ConversationService(address, grpc.credentials.createInsecure());
const stream = client.Converse({ deadline: Date.now() + 120_000 });
let finishReason = "";

stream.on("data", (response) => {
  console.log(JSON.stringify(plain(response)));
  if (response.event === "ready") {
    stream.write({ append: { text: "Tell me about the green boat" } });
    stream.write({ revise: { from_char: 18, text: "red boat." } });
    stream.write({ commit: {} });
  }
  if (response.event === "turn_done") {
    finishReason = response.turn_done.finish_reason;
    stream.end();
  }
});
stream.on("error", (error) => {
  console.error(`${error.code} ${error.details}`);
  process.exit(1);
});
stream.on("end", () => {
  client.close();
  process.exitCode = ENDED_WELL.has(finishReason) ? 0 : 1;
});

stream.write({
  start: {
    modalities: modalities.map((name) => `MODALITY_${name.toUpperCase()}`),
    sampling: { max_tokens: 24, seed: 7 },
    image: { steps: 4, preview_every: 2 },
  },
});
