(function () {
  "use strict";
  var source = document.getElementById("viewer-volumes");
  if (!source) return;
  var data = JSON.parse(source.textContent), cases = data.cases;
  var differences = Object.keys(data.differences).map(function (value) {
    return { value: Number(value), name: data.differences[value][0], colour: data.differences[value][1] };
  });
  var readout = document.getElementById("viewer-readout");
  var canvas = document.getElementById("viewer-canvas");
  var buttons = document.querySelectorAll("#viewer-cases button");
  var sliders = document.querySelectorAll(".sliders input");
  var viewer = null;
  var layers = [];

  async function loadLibrary() {
    var text = document.getElementById("viewer-code").textContent.trim();
    var packed = Uint8Array.from(atob(text), function (c) { return c.charCodeAt(0); });
    var stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    var script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.appendChild(script);
  }

  function colours(labels) {
    var map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    labels.forEach(function (label) {
      map.R.push(parseInt(label.colour.slice(1, 3), 16));
      map.G.push(parseInt(label.colour.slice(3, 5), 16));
      map.B.push(parseInt(label.colour.slice(5, 7), 16));
      map.A.push(255);
      map.I.push(label.value);
      map.labels.push(label.name);
    });
    return map;
  }

  function opacity(layer) {
    return Number(document.querySelector('.sliders [data-layer="' + layer + '"]').value);
  }

  async function open(shown) {
    while (viewer.volumes.length) viewer.removeVolumeByIndex(viewer.volumes.length - 1);
    layers = ["image", "mask", "reference", "variance", "differences"].filter(function (name) { return shown[name]; });
    for (var name of layers) {
      var options = { base64: shown[name], name: name + ".nii.gz", colormap: "gray", opacity: 1 };
      if (name === "image") Object.assign(options, { cal_min: 0, cal_max: 255 });
      else options.opacity = opacity(name);
      if (name === "variance") Object.assign(options, { colormap: "magma", cal_min: 0.02 * shown.variance_top, cal_max: shown.variance_top });
      var volume = await niivue.NVImage.loadFromBase64(options);
      if (name === "mask" || name === "reference") volume.setColormapLabel(colours(shown.labels));
      if (name === "differences") volume.setColormapLabel(colours(differences));
      viewer.addVolume(volume);
    }
    viewer.scene.crosshairPos = viewer.mm2frac(shown.spot);
    viewer.updateGLVolume();
    viewer.createOnLocationChange();
  }

  function tell(shown, place) {
    var at = {};
    place.values.forEach(function (value, i) { at[layers[i]] = value.value; });
    function named(value) {
      var found = shown.labels.find(function (label) { return label.value === Math.round(value); });
      return found ? found.name : "background";
    }
    var mm = Array.from(place.mm).slice(0, 3).map(function (v) { return v.toFixed(1); }).join(", ");
    readout.textContent = "At " + mm + " mm: mask " + named(at.mask) + ", reference " + named(at.reference) +
      (at.variance === undefined ? "" : ", variance " + at.variance.toFixed(3));
  }

  async function start() {
    readout.textContent = "Loading …";
    await loadLibrary();
    viewer = new niivue.Niivue({
      logLevel: "error",
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.8],
      crosshairGap: 2,
      crosshairWidth: 0.2,
      dragAndDropEnabled: false,
      fontColor: [1, 1, 1, 0.9],
      fontMinPx: 15,
      isNearestInterpolation: true,
      isRadiologicalConvention: true,
      loadingText: "",
      multiplanarPadPixels: 4,
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
      sagittalNoseLeft: true,
      scrollRequiresFocus: true,
    });
    await viewer.attachToCanvas(canvas);
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
    var current = 0;
    viewer.onLocationChange = function (place) { tell(cases[current], place); };
    buttons.forEach(function (button, i) {
      button.addEventListener("click", async function () {
        current = i;
        buttons.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
        await open(cases[i]);
      });
    });
    sliders.forEach(function (slider) {
      slider.addEventListener("input", function () {
        var index = layers.indexOf(slider.dataset.layer);
        if (index > 0) viewer.setOpacity(index, Number(slider.value));
      });
    });
    await open(cases[0]);
    canvas.dataset.ready = "true";
  }

  var watch = new IntersectionObserver(function (entries) {
    if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
    watch.disconnect();
    start().catch(function (error) {
      readout.textContent = "This browser cannot show the viewer (it needs WebGL 2): " + error.message;
    });
  }, { rootMargin: "300px" });
  watch.observe(canvas);
})();
