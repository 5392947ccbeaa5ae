"use strict";
// The first process of a workspace's container: creates the folders and settings that an empty volume lacks, then
// serves the editor. Flags and settings are shared with the local runtime (workers/runtime/local/editor_defaults.py).
// The ingress decides who gets in; guard.js refuses requests that did not come through it.
const fs = require("node:fs");
const { flags, settings } = require("./defaults.json");
const { replace } = require("./files");

const VOLUME = "/workspace";
const files = `${VOLUME}/app`;
const home = `${VOLUME}/home`;
// code-server's own default, so that `code-server` in a terminal uses the same data.
const data = `${home}/.local/share/code-server`;
const userSettings = `${data}/User/settings.json`;

process.umask(0o022);
for (const folder of [files, home, data]) fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
try {
  // Once: the user may change them.
  if (!fs.existsSync(userSettings)) replace(userSettings, JSON.stringify(settings, null, 4));
} catch (error) {
  // The volume is full: the editor starts without them.
  console.error(`the editor's settings can't be written: ${error.code}`);
}
process.chdir(files);
process.argv.push(
  ...["--bind-addr", "0.0.0.0:8080"],
  ...["--user-data-dir", data],
  ...["--extensions-dir", `${data}/extensions`],
  ...flags,
  // Half of what would make VS Code use an agent host elsewhere, so it starts none of its own: 77 MB for Copilot,
  // which this image lacks.
  ...["--vscode-option", "agent-host-bridge-host=127.0.0.1"],
  files,
);
require("./launch");
