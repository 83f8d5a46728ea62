// Uploads what is chosen in a file input straight to the store, and puts the signed token
// for it into the hidden field beside the input. Without this script, and when an upload
// fails, the file goes with the form as ever. See docs/howto/browser-uploads.md.
(() => {
  "use strict";

  const inputs = "input[type=file][data-outgrow-offer]";
  // The input -> the upload that is under way: {request, cancelled}.
  const running = new Map();
  // The form -> the button that sent it while an upload was under way.
  const waiting = new Map();

  const hidden = (input) =>
    Array.from(input.form ? input.form.elements : []).find(
      (one) => one.type === "hidden" && one.name === `${input.name}-direct`,
    );

  const text = (input, key, values) =>
    JSON.parse(input.dataset.outgrowTexts)[key].replace(
      /%\((\w+)\)s/g,
      (_, name) => values[name] ?? "",
    );

  // --- what is shown beside the input

  const place = (input) => {
    let found = input.nextElementSibling;
    if (!found || !found.classList.contains("outgrow-upload")) {
      found = document.createElement("span");
      found.className = "outgrow-upload";
      found.setAttribute("role", "status");
      input.after(found);
    }
    return found;
  };

  const show = (input, message, ...more) => {
    const label = document.createElement("span");
    label.textContent = message;
    place(input).replaceChildren(label, ...more.flatMap((one) => [" ", one]));
  };

  const button = (label, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", act);
    return made;
  };

  // --- one upload

  class Refused extends Error {}

  const permit = async (input, file, signal) => {
    const body = new FormData();
    body.append("offer", input.dataset.outgrowOffer);
    body.append("name", file.name);
    body.append("size", file.size);
    const csrf = input.form.querySelector("input[name=csrfmiddlewaretoken]");
    const answer = await fetch(input.dataset.outgrowPermit, {
      method: "POST",
      body,
      headers: csrf ? { "X-CSRFToken": csrf.value } : {},
      credentials: "same-origin",
      signal,
    });
    const json = (answer.headers.get("Content-Type") || "").startsWith("application/json");
    const found = json ? await answer.json() : {};
    if (found.problem) throw new Refused(found.problem);
    if (!answer.ok) throw new Error(`${answer.status}`);
    return found;
  };

  const send = (given, file, upload, told) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // fetch() tells no progress of what it sends
      upload.request = request;
      request.open(given.method, given.url);
      let body = file;
      if (given.method === "POST") {
        body = new FormData();
        for (const [name, value] of Object.entries(given.fields)) body.append(name, value);
        body.append("file", file);
      }
      for (const [name, value] of Object.entries(given.headers)) {
        request.setRequestHeader(name, value);
      }
      request.upload.addEventListener("progress", told);
      request.addEventListener("load", () =>
        request.status >= 200 && request.status < 300
          ? resolve()
          : reject(new Error(`${request.status}`)),
      );
      for (const event of ["error", "abort", "timeout"]) {
        request.addEventListener(event, () => reject(new Error(event)));
      }
      request.send(body);
    });

  const cancel = (input) => {
    const upload = running.get(input);
    if (!upload) return;
    running.delete(input);
    upload.stop.abort();
    if (upload.request) upload.request.abort();
  };

  const forget = (input) => {
    hidden(input).value = "";
    input.required = input.dataset.outgrowRequired === "yes";
    place(input).replaceChildren();
  };

  const tell = (input, name) => {
    input.required = false;
    show(
      input,
      text(input, "done", { name }),
      button(text(input, "remove", {}), () => forget(input)),
    );
  };

  const done = (input, file, token) => {
    hidden(input).value = token;
    input.value = ""; // it is not to be sent a second time, with the form
    tell(input, file.name);
  };

  const start = async (input) => {
    cancel(input);
    const field = hidden(input);
    const file = input.files[0];
    if (!field || !file || !input.form) return;
    field.value = "";
    const upload = { stop: new AbortController(), request: null };
    running.set(input, upload);
    const progress = document.createElement("progress");
    progress.max = 1;
    progress.value = 0;
    const stop = button(text(input, "cancel", {}), () => {
      cancel(input);
      input.value = "";
      forget(input);
    });
    show(input, text(input, "uploading", { name: file.name }), progress, stop);
    try {
      const given = await permit(input, file, upload.stop.signal);
      await send(given, file, upload, (event) => {
        if (event.lengthComputable) progress.value = event.loaded / event.total;
      });
      if (running.get(input) === upload) done(input, file, given.token);
    } catch (error) {
      if (running.get(input) !== upload) return; // cancelled, or another file was chosen
      if (error instanceof Refused) {
        const said = text(input, "refused", { name: file.name, reason: error.message });
        input.value = "";
        waiting.delete(input.form); // there is something to be read first
        show(input, said);
      } else {
        show(input, text(input, "failed", { name: file.name }));
      }
    } finally {
      if (running.get(input) === upload) running.delete(input);
      proceed(input.form);
    }
  };

  // --- a form that is sent while an upload is under way waits for it

  const busy = (form) => Array.from(running.keys()).find((input) => input.form === form);

  const proceed = (form) => {
    if (!form || busy(form) || !waiting.has(form)) return;
    const submitter = waiting.get(form);
    waiting.delete(form);
    form.requestSubmit(submitter ?? undefined);
  };

  // --- a form that is shown again has its upload still

  const again = () => {
    for (const input of document.querySelectorAll(inputs)) {
      if (input.dataset.outgrowUploaded) tell(input, input.dataset.outgrowUploaded);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", again);
  else again();

  document.addEventListener("change", (event) => {
    if (event.target.matches && event.target.matches(inputs)) start(event.target);
  });

  document.addEventListener("submit", (event) => {
    const input = busy(event.target);
    if (!input) return;
    event.preventDefault();
    waiting.set(event.target, event.submitter);
    const note = document.createElement("span");
    note.textContent = ` ${text(input, "waiting", {})}`;
    place(input).append(note);
  });
})();
