import { greeting } from "./words.js";

postMessage(greeting("worker"));
