(function () {
  "use strict";
  document.querySelectorAll(".sortable th").forEach(function (head) {
    var up = false;
    head.addEventListener("click", function () {
      var body = head.closest("table").tBodies[0], column = head.cellIndex;
      up = !up;
      Array.from(body.rows).sort(function (a, b) {
        var s = a.cells[column].textContent, t = b.cells[column].textContent;
        var order = isNaN(s) || isNaN(t) ? s.localeCompare(t, undefined, { numeric: true }) : s - t;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
  var buttons = document.querySelectorAll("#kinds button");
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      document.querySelector(".by-kind").dataset.kind = button.dataset.kind;
      buttons.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
    });
  });
})();
