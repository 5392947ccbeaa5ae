"use strict";
// Uploads of files, which a form can't send as they are: those that a person chooses or drops, one after another.
(() => {
  const by = (id) => document.getElementById(id);

  // The page may show another folder or tab meanwhile.
  const say = (text) => {
    const line = by("upload-state");
    if (line && line.textContent !== text) line.textContent = text;
  };

  const send = (address, file, told) =>
    new Promise((done) => {
      const xhr = new XMLHttpRequest();
      xhr.open("PUT", address);
      const headers = { ...JSON.parse(document.body.getAttribute("hx-headers")), "HX-Request": "true" };
      for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
      xhr.setRequestHeader("Content-Type", "application/octet-stream");
      xhr.upload.addEventListener("progress", (event) => told(event.loaded / (event.total || 1)));
      xhr.addEventListener("loadend", () => done(xhr));
      xhr.send(file);
    });

  // An error of the dashboard is a notice; any other answer is from something before it, or there is none.
  const tell = (answer, file) => {
    const elsewhere = answer.getResponseHeader("HX-Redirect");
    if (elsewhere) return location.assign(elsewhere);
    const notices = by("notices");
    if (answer.getResponseHeader("HX-Retarget")) notices.insertAdjacentHTML("afterbegin", answer.responseText);
    else notices.prepend(by("unanswered").content.cloneNode(true));
    const name = document.createElement("b");
    name.textContent = file.name;
    notices.firstElementChild.prepend(name);
  };

  const upload = async (files, to) => {
    let replace, done = 0, kept = 0;
    for (const [index, file] of files.entries()) {
      const address = to + encodeURIComponent(file.name), place = files.length > 1 ? ` (${index + 1} of ${files.length})` : "";
      // In steps: each text is read out to those who can't see it.
      const told = (part) => say(`Uploading ${file.name}${place}: ${10 * Math.floor(10 * part)} %`);
      told(0);
      let answer = await send(replace ? `${address}&replace=true` : address, file, told);
      if (answer.status === 412 && replace === undefined) {
        const others = files.length > 1 ? ", and all others of this upload that are" : "";
        replace = confirm(`${file.name} is there already. Replace it${others}?`);
        if (replace) answer = await send(`${address}&replace=true`, file, told);
      }
      if (answer.status === 204) done++;
      else if (answer.status === 412 && !replace) kept++;
      else tell(answer, file);
    }
    const failed = files.length - done - kept;
    say(`${done} of ${files.length} uploaded${kept ? `, ${kept} left as before` : ""}${failed ? `, ${failed} failed` : ""}.`);
    if (by("files-here")) htmx.trigger("#files-here", "files-changed");
  };

  let last = Promise.resolve();
  const add = (files) => {
    const to = by("upload").dataset.to;
    if (files.length) last = last.then(() => upload(files, to));
  };

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-upload]")) by("upload").click();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "upload") return;
    add([...event.target.files]);
    event.target.value = "";
  });

  const dropped = (event) =>
    by("upload") && event.dataTransfer?.types.includes("Files") && event.target.closest?.("#files");
  document.addEventListener("dragover", (event) => {
    const place = dropped(event);
    by("files")?.classList.toggle("dropping", Boolean(place));
    if (place) event.preventDefault();
  });
  document.addEventListener("dragleave", () => by("files")?.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    if (!dropped(event)) return;
    event.preventDefault();
    by("files").classList.remove("dropping");
    // A folder can't be read as a file.
    const items = [...event.dataTransfer.items].filter((each) => each.kind === "file" && !each.webkitGetAsEntry()?.isDirectory);
    add(items.map((each) => each.getAsFile()));
  });
})();
