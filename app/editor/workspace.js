"use strict";
// The first process of a workspace's container: creates the folders and settings that an empty volume lacks, then
// serves the editor. The local runtime starts it alike (workers/runtime/local/launcher.py).
// The ingress decides who gets in; guard.js refuses requests that did not come through it.
const fs = require("node:fs");
const editor = require("./code_server.json");
const { replace } = require("./files");

const VOLUME = "/workspace";
const files = `${VOLUME}/app`;
const home = `${VOLUME}/home`;
const data = `${home}/${editor.data}`;
const userSettings = `${data}/${editor.settings_file}`;
const values = { "{host}": "0.0.0.0", "{port}": editor.port, "{data}": data };

process.umask(0o022);
for (const folder of [files, home, data]) fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
try {
  // Once: the user may change them.
  if (!fs.existsSync(userSettings)) replace(userSettings, JSON.stringify(editor.settings, null, 4));
} catch (error) {
  // The volume is full: the editor starts without them.
  console.error(`the editor's settings can't be written: ${error.code}`);
}
process.chdir(files);
process.argv.push(
  ...editor.flags.map((flag) => flag.replace(/\{\w+\}/g, (name) => values[name])),
  ...editor.pod_flags,
  files,
);
require("./launch");
