// Launches the browser for tests of the page. `make test-tools` brings it, and the packages, into .tools/browser.
//
// Which browser: the program that GROUNDSTATION_BROWSER_PROGRAM names; the one brought; an installed Chrome or
// Chromium. Run by itself, this says which, or that there is none with exit status 77.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";

const tools = new URL("../../.tools/browser/", import.meta.url).pathname;
// The scripts of tests are elsewhere: packages are searched from where they are.
const brought = createRequire(tools);

export const { AxeBuilder } = brought("@axe-core/playwright");
const { chromium } = brought("playwright-core");

const NONE = "there is no browser: `make test-tools` brings one to Linux on x86_64; elsewhere install Chrome";

const INSTALLED = [
  "google-chrome-stable",
  "google-chrome",
  "chromium",
  "chromium-browser",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/** The browser's program; none if there is none. */
function program() {
  const own = `${tools}browser/chromium`;
  return process.env.GROUNDSTATION_BROWSER_PROGRAM || (existsSync(own) ? own : installed());
}

function installed() {
  const folders = (process.env.PATH ?? "").split(":");
  const places = INSTALLED.flatMap((name) =>
    name.startsWith("/") ? [name] : folders.map((folder) => `${folder}/${name}`));
  return places.find(existsSync);
}

/** What the browser that was brought needs in a machine without fonts or libraries. */
function surroundings(home) {
  const fonts = [`${tools}browser/fonts`, `${tools}node_modules/dejavu-fonts-ttf/ttf`, "/usr/share/fonts"];
  const folders = fonts.map((folder) => `<dir>${folder}</dir>`).join("");
  // Without such a file it ends at once.
  writeFileSync(`${home}/fonts.conf`, `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>${folders}<cachedir>${home}/cache</cachedir></fontconfig>`);
  return { LD_LIBRARY_PATH: `${tools}browser/lib:${tools}browser`, FONTCONFIG_FILE: `${home}/fonts.conf` };
}

/** A browser of playwright, with these options of its launch. Whatever it writes goes when this process ends. */
export async function launch(options = {}) {
  const executablePath = program();
  if (!executablePath) throw new Error(NONE);
  const home = mkdtempSync(`${tmpdir()}/groundstation-browser-`);
  process.once("exit", () => rmSync(home, { recursive: true, force: true, maxRetries: 3 }));
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: home, TZ: "UTC", LANG: "C.UTF-8" };
  if (executablePath.startsWith(tools)) Object.assign(env, surroundings(home));
  return await chromium.launch({ executablePath, env, ...options });
}

if (import.meta.main) {
  console.log(program() ?? NONE);
  process.exit(program() ? 0 : 77);
}
