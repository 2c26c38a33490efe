// Reads [{name, language: "flux" | "promql", text}] and prints {name: what is wrong} for those that are not right.
import { readFileSync } from "node:fs";
import lsp from "@influxdata/flux-lsp-node";
import { parser } from "@prometheus-io/lezer-promql";

const wrong = {};

function flux(text) {
  try {
    return new lsp.Flux(text).is_valid() ? null : "does not type-check";
  } catch (error) {
    return String(error);
  }
}

function promql(text) {
  const errors = [];
  parser.parse(text).iterate({
    enter: (node) => {
      if (node.type.isError) errors.push(`not PromQL at ${node.from}: ${text.slice(node.from, node.from + 20)}`);
    },
  });
  return errors[0] ?? null;
}

for (const { name, language, text } of JSON.parse(readFileSync(0, "utf-8"))) {
  const found = (language === "flux" ? flux : promql)(text);
  if (found) wrong[name] = found;
}
console.log(JSON.stringify(wrong));
