"use strict";
// The folder of activity signals, which the workspace's agent reads (app/agent/activity_reporter.py), and atomic writes.
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const SIGNALS = path.join(os.homedir(), ".local", "state", "workspace");

// Creates the file's folder if need be; a reader sees the old content or the new one.
function replace(file, text) {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  fs.writeFileSync(`${file}.new`, text);
  fs.renameSync(`${file}.new`, file);
}

module.exports = { SIGNALS, replace };
