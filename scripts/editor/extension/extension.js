"use strict";
// Leaves signs of what a person does in the editor where the workspace's agent finds them (app/agent/activity.py):
// a file is touched when they type, scroll, select or save, and another names what is not saved. An open page in
// which nobody does anything leaves none. It also shows the agent's announcement that the workspace is about to sleep.
//
// Part of the editor's own extensions, so it needs no marketplace and nobody can uninstall it.
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const vscode = require("vscode");

const PACE = 2_000; // ms between two touches.
const SETTLE = 500; // ms of quiet before unsaved files are listed.
const NAMES = 20;

const folder = path.join(os.homedir(), ".local", "state", "workspace");
const editor = path.join(folder, "editor");
const unsaved = path.join(folder, "unsaved.json");
const notice = path.join(folder, "notice.json");

let touchedAt = 0;
let announced = 0;
let listing;

// A full volume is no reason to bother anyone here.
function write(file, text) {
  try {
    fs.writeFileSync(`${file}.new`, text);
    fs.renameSync(`${file}.new`, file);
  } catch {
    return;
  }
}

// Somebody did something. What happens in a page that nobody looks at is not somebody's doing: files that the agent
// changes are shown in open editors too.
function used() {
  const now = Date.now();
  if (!vscode.window.state.focused || (now - touchedAt < PACE && now >= touchedAt)) return;
  touchedAt = now;
  write(editor, "");
}

function listUnsaved() {
  clearTimeout(listing);
  listing = setTimeout(() => {
    const open = [...vscode.workspace.textDocuments, ...vscode.workspace.notebookDocuments];
    const names = open.filter((each) => each.isDirty).map((each) => vscode.workspace.asRelativePath(each.uri));
    write(unsaved, JSON.stringify({ names: names.slice(0, NAMES) }));
  }, SETTLE);
}

async function announce() {
  let told;
  try {
    told = JSON.parse(fs.readFileSync(notice, "utf8"));
  } catch {
    return; // None yet.
  }
  const seconds = Math.round(told.sleeps_at - Date.now() / 1000);
  if (!(seconds > 0) || told.sleeps_at === announced) return;
  announced = told.sleeps_at;
  const answer = await vscode.window.showWarningMessage(
    `This workspace goes to sleep in ${seconds} s because nobody uses it. Its files are kept.`,
    "Keep going",
  );
  if (answer) write(editor, "");
}

function activate(context) {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { window, workspace } = vscode;
  const signs = [
    workspace.onDidChangeTextDocument,
    workspace.onDidSaveTextDocument,
    workspace.onDidChangeNotebookDocument,
    window.onDidChangeActiveTextEditor,
    window.onDidChangeTextEditorSelection,
    window.onDidChangeTextEditorVisibleRanges,
    window.onDidChangeActiveTerminal,
    window.onDidOpenTerminal,
    window.tabGroups.onDidChangeTabs,
  ];
  const changes = [
    workspace.onDidOpenTextDocument,
    workspace.onDidChangeTextDocument,
    workspace.onDidSaveTextDocument,
    workspace.onDidCloseTextDocument,
    workspace.onDidChangeNotebookDocument,
    workspace.onDidSaveNotebookDocument,
    workspace.onDidCloseNotebookDocument,
  ];
  const watcher = fs.watch(folder, (_, name) => {
    if (name === path.basename(notice)) announce();
  });
  context.subscriptions.push(
    ...signs.map((sign) => sign(used)),
    ...changes.map((change) => change(listUnsaved)),
    // `active` tells of keys and clicks anywhere in the page, but only its change does: a page that is closed while
    // it was active stays so for ever.
    window.onDidChangeWindowState((state) => state.active && used()),
    { dispose: () => watcher.close() },
    { dispose: () => clearTimeout(listing) },
  );
  listUnsaved();
  announce();
}

module.exports = { activate };
