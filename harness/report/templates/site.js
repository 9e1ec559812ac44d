"use strict";
// Shows the rows of the table that fit every choice. Without scripts all rows are there, and no choices.
(() => {
  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const rows = [...document.querySelectorAll(".support tbody tr[data-task]")];
  const choices = [...form.querySelectorAll("select")];
  const apply = () => {
    let count = 0;
    for (const row of rows) {
      row.hidden = choices.some((one) => one.value && row.dataset[one.name] !== one.value);
      count += Number(!row.hidden);
    }
    shown.value = `${count} / ${shown.dataset.all}`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
})();
