import "./late.css";
import { greeting } from "./words.js";

export async function show(where) {
  const { word } = await import("./later.js");
  const shown = document.createElement("p");
  shown.id = "late";
  shown.textContent = greeting(word);
  where.append(shown);
}
