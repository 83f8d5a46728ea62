import "./style.css";
import picture from "./picture.svg";
import { greeting } from "./words.js";

document.querySelector("#picture").src = picture;

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.onmessage = (event) => {
  document.querySelector("#said").textContent = `${greeting("page")}, ${event.data}`;
};

// With a sheet and a module of its own, whose names Vite writes into a list, as strings.
document.querySelector("#later").onclick = async () => {
  const { show } = await import("./late.js");
  await show(document.body);
};
