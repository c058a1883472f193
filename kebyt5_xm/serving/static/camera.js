/** Takes a picture with the camera, in a dialog. */
import { text } from "./language.js";

const QUALITY = 0.92;

/** Return the picture as a JPEG file, or null if it was cancelled. Throws an Error with a message for readers. */
export async function takePicture() {
  const [dialog, view, take, cancel] = ["camera-dialog", "camera-view", "camera-take", "camera-cancel"].map((id) =>
    document.getElementById(id),
  );
  let input;
  try {
    if (!navigator.mediaDevices) throw new Error(text("insecure"));
    input = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(text("cameraRefused", { cause: error.message }));
  }
  try {
    view.srcObject = input;
    dialog.showModal();
    await view.play();
    const isTaken = await new Promise((resolve) => {
      take.onclick = () => resolve(true);
      cancel.onclick = () => resolve(false);
      dialog.onclose = () => resolve(false); // Escape
    });
    return isTaken ? await capture(view) : null;
  } finally {
    input.getTracks().forEach((track) => track.stop());
    view.srcObject = null;
    dialog.close();
  }
}

async function capture(view) {
  const canvas = new OffscreenCanvas(view.videoWidth, view.videoHeight);
  canvas.getContext("2d").drawImage(view, 0, 0);
  const picture = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return new File([picture], "camera.jpg", { type: "image/jpeg" });
}
