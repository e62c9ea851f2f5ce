// Opened from a disk, a page may start no worker: browsers refuse workers of file:// addresses, and the search is one.
// There an invisible frame of the same address runs the script in its place.

class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const early = []; // until the frame has loaded
    this.postMessage = (data) => early.push(data);
    const frame = document.createElement("iframe");
    frame.hidden = true;
    frame.srcdoc = "<!doctype html>";
    frame.onload = () => {
      frame.onload = null;
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => load(inside, one)), Promise.resolve());
      load(inside, url).then(() => {
        this.postMessage = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
        early.forEach(this.postMessage);
      });
    };
    document.head.append(frame);
  }
}

function load(inside, url) {
  return new Promise((resolve, reject) => {
    const script = inside.document.createElement("script");
    script.src = url;
    script.onload = resolve;
    script.onerror = reject;
    inside.document.head.append(script);
  });
}

if (location.protocol === "file:") window.Worker = FrameWorker;
