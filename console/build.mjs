// Builds the page: `dist/index.html` and `dist/assets/<name>-<hash>.<ext>`, and nothing else.
//
// The same sources give the same bytes: names have the hash of what is in them, and nothing of the machine or the
// time goes in.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = new URL(".", import.meta.url).pathname;
const dist = `${here}dist`;
const base = "/console/assets/";

rmSync(dist, { recursive: true, force: true });
mkdirSync(`${dist}/assets`, { recursive: true });

const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
  write: true,
  outdir: "dist/assets",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  logLevel: "warning",
};

/** Where the output of an entry is, as the browser asks for it. */
const outputs = (result, entry) => {
  const found = Object.entries(result.metafile.outputs).find(([, output]) => output.entryPoint === entry);
  if (!found) throw new Error(`no output of ${entry}`);
  const name = (path) => base + path.replace("dist/assets/", "");
  return { script: name(found[0]), style: found[1].cssBundle ? name(found[1].cssBundle) : undefined };
};

// The worker and the theme are files of their own: one runs without a page, one before it is drawn.
const alone = await build({ ...common, format: "iife", entryPoints: ["src/feed/worker.ts", "src/theme/first.ts"] });
const worker = outputs(alone, "src/feed/worker.ts").script;
const theme = outputs(alone, "src/theme/first.ts").script;

const page = await build({
  ...common,
  splitting: true,
  entryPoints: { app: "src/main.tsx" },
  define: { FEED_WORKER: JSON.stringify(worker) },
});
const app = outputs(page, "src/main.tsx");

const icon = readFileSync(`${here}src/icon.svg`);
const iconName = `icon-${createHash("sha256").update(icon).digest("hex").slice(0, 8)}.svg`;
writeFileSync(`${dist}/assets/${iconName}`, icon);

const html = readFileSync(`${here}src/index.html`, "utf8")
  .replace("{icon}", base + iconName)
  .replace("{theme}", theme)
  .replace("{style}", app.style)
  .replace("{script}", app.script);
writeFileSync(`${dist}/index.html`, html);

const written = [...Object.keys(alone.metafile.outputs), ...Object.keys(page.metafile.outputs)];
let [bytes, zipped] = [0, 0];
for (const path of written.sort()) {
  const content = readFileSync(here + path);
  const small = gzipSync(content, { level: 9 }).length;
  [bytes, zipped] = [bytes + content.length, zipped + small];
  console.log(`${path.padEnd(44)} ${String(content.length).padStart(8)} bytes ${String(small).padStart(7)} gzip`);
}
console.log(`${"all".padEnd(44)} ${String(bytes).padStart(8)} bytes ${String(zipped).padStart(7)} gzip`);
