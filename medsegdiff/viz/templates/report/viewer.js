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
  var layers = []; // what the viewer's volumes are, in their order
  var current = 0;

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

  async function decode(shown, name) {
    var options = { base64: shown[name], name: name + ".nii.gz", colormap: "gray" };
    if (name === "image") Object.assign(options, { cal_min: 0, cal_max: 255 });
    if (name === "variance") Object.assign(options, { colormap: "magma", cal_min: 0.02 * shown.variance_top, cal_max: shown.variance_top });
    var volume = await niivue.NVImage.loadFromBase64(options);
    if (name === "mask" || name === "reference") volume.setColormapLabel(colours(shown.labels));
    if (name === "differences") volume.setColormapLabel(colours(differences));
    return volume;
  }

  async function open(index) {
    current = index;
    var shown = cases[index];
    var names = ["image", "mask", "reference", "variance", "differences"].filter(function (name) { return shown[name]; });
    var volumes = await Promise.all(names.map(function (name) { return decode(shown, name); }));
    if (current !== index) return; // another case was asked for meanwhile
    volumes.forEach(function (volume, i) { volume.opacity = i ? opacity(names[i]) : 1; });
    layers = names;
    viewer.volumes = volumes;
    viewer.setVolume(volumes[0], 0); // all at once: it draws them anew
    viewer.scene.crosshairPos = viewer.mm2frac(shown.spot);
    viewer.drawScene();
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

  function fail(error) {
    readout.textContent = "This browser cannot show the viewer (it needs WebGL 2): " + error.message;
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
    viewer.onLocationChange = function (place) { tell(cases[current], place); };
    buttons.forEach(function (button, i) {
      button.addEventListener("click", function () {
        buttons.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
        open(i).catch(fail);
      });
    });
    sliders.forEach(function (slider) {
      slider.addEventListener("input", function () {
        var index = layers.indexOf(slider.dataset.layer);
        if (index > 0) viewer.setOpacity(index, Number(slider.value));
      });
    });
    await open(0);
    canvas.dataset.ready = "true";
  }

  var watch = new IntersectionObserver(function (entries) {
    if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
    watch.disconnect();
    start().catch(fail);
  }, { rootMargin: "300px" });
  watch.observe(canvas);
})();
