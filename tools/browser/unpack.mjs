// Unpacks the browser that @sparticuz/chromium carries, into `browser` beside this file: whole or not at all.

import { createReadStream, createWriteStream, mkdirSync, renameSync, rmSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";
import { extract } from "tar-fs";

const here = new URL(".", import.meta.url).pathname;
const from = `${here}node_modules/@sparticuz/chromium/bin/`;
const [to, fresh] = [`${here}browser`, `${here}browser.new`];

const unpack = (name, into) => pipeline(createReadStream(from + name), createBrotliDecompress(), into);

rmSync(fresh, { recursive: true, force: true });
mkdirSync(fresh);
await unpack("chromium.br", createWriteStream(`${fresh}/chromium`, { mode: 0o755 }));
for (const name of ["al2023", "swiftshader", "fonts"]) {
  await unpack(`${name}.tar.br`, extract(fresh));
}
rmSync(to, { recursive: true, force: true });
renameSync(fresh, to);
