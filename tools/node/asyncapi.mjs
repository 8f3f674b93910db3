// Says what the official parser finds wrong with an AsyncAPI document: node asyncapi.mjs FILE
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const { severity, path, message } of diagnostics) {
  console.log(JSON.stringify({ severity, path: path.join("."), message }));
}
if (document === undefined) process.exit(1);
for (const channel of document.channels()) {
  for (const message of channel.messages()) {
    console.log(JSON.stringify({ address: channel.address(), message: message.name() }));
  }
}
