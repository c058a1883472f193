/** Prompts as people edit them: text with {modality} for the place of a medium, and doubled braces for braces. */
import { text } from "./language.js";

/** Return the text of a prompt's parts, given the values of its fields. */
export function promptText(parts, fields) {
  return parts
    .map((part) => {
      if (part.type === "text") return escape(part.text);
      if (part.type === "field") return escape(fields[part.name] ?? "");
      return `{${part.modality}}`;
    })
    .join("");
}

/**
 * Return the pieces of an edited prompt: {type: "text", text} and {type: kind, modality}.
 *
 * `modalities` maps names to kinds. Throws an Error with a message for readers at a place of no modality.
 */
export function parsePrompt(edited, modalities) {
  const pieces = [];
  let literal = "";
  const end = () => {
    if (literal) pieces.push({ type: "text", text: literal });
    literal = "";
  };
  let position = 0;
  for (const found of edited.matchAll(/\{\{|\}\}|\{([^{}]*)\}|[{}]/g)) {
    literal += edited.slice(position, found.index);
    position = found.index + found[0].length;
    if (found[0] === "{{" || found[0] === "}}") literal += found[0][0];
    else if (found[1] !== undefined && Object.hasOwn(modalities, found[1])) {
      end();
      pieces.push({ type: modalities[found[1]], modality: found[1] });
    } else throw new Error(text("unknownPlace", { place: found[0], places: places(modalities) }));
  }
  literal += edited.slice(position);
  end();
  return pieces;
}

/** Return the places that a prompt may have, for readers. */
export function places(modalities) {
  return Object.keys(modalities)
    .map((name) => `{${name}}`)
    .join(", ");
}

function escape(literal) {
  return literal.replace(/[{}]/g, "$&$&");
}
