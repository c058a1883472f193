/** The style sheet's colours, for canvases, which do not follow it by themselves. */

/** Return [red, green, blue], from 0 to 255, of a custom property such as "--ink". */
export function colour(name) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/** Return a CSS colour of `colour` with an opacity. */
export function rgba([red, green, blue], opacity = 1) {
  return `rgb(${red} ${green} ${blue} / ${opacity})`;
}

/** Call `draw` whenever the reader's system turns light or dark. */
export function onSchemeChange(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
