// Sends events by a client library, unmodified. node clients.mjs PACKAGES LIBRARY URL KEY COUNT
import { createRequire } from "node:module";

const [packages, library, url, key, count] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const failed = [];

async function segment() {
  const { Analytics } = require("@segment/analytics-node");
  const client = new Analytics({ writeKey: key, host: url, path: "/v1/batch", maxEventsInBatch: 25 });
  client.on("error", (error) => failed.push(error));
  for (let n = 0; n < Number(count); n++) {
    client.track({ userId: `u${n}`, event: "Order Completed", properties: { revenue: n, "étoile": "★" } });
  }
  client.identify({ userId: "u1", traits: { plan: "pro" } });
  client.page({ userId: "u1", name: "Start", properties: { url: "https://example.com/" } });
  await client.closeAndFlush();
}

async function posthog() {
  const { PostHog } = require("posthog-node");
  const client = new PostHog(key, { host: url, flushAt: 25 });
  client.on("error", (error) => failed.push(error));
  for (let n = 0; n < Number(count); n++) {
    client.capture({ distinctId: `u${n}`, event: "Order Completed", properties: { revenue: n } });
  }
  client.capture({
    distinctId: "u1", event: "$pageview", properties: { $current_url: "https://example.com/" },
  });
  await client.shutdown();
}

await { segment, posthog }[library]();
if (failed.length) {
  console.error(failed);
  process.exit(1);
}
