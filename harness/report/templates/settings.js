"use strict";
// Light or dark, English or Chinese: the stored choice of the reader, else the system setting.
const settings = (() => {
  const root = document.documentElement;
  const buttons = { language: document.getElementById("language"), theme: document.getElementById("theme") };
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const english = document.title;
  const WORDS = {
    en: { theme: ["Dark", "Light"], use: ["Use dark colours", "Use light colours"], other: ["中文", "zh-CN"] },
    "zh-CN": { theme: ["深色", "浅色"], use: ["使用深色", "使用浅色"], other: ["English", "en"] },
  };

  // Storage may be forbidden, for files above all: then a choice holds until the page is closed.
  const remembered = (key) => {
    try {
      return localStorage.getItem(`certify-${key}`);
    } catch {
      return null;
    }
  };
  const remember = (key, value) => {
    try {
      localStorage.setItem(`certify-${key}`, value);
    } catch {
      // see above
    }
  };

  // Without a font for Chinese, browsers draw one and the same box for every character.
  const drawsChinese = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 40 });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.font = `32px ${getComputedStyle(root).getPropertyValue("--text")}`;
    const drawn = (character) => {
      context.clearRect(0, 0, 40, 40);
      context.fillText(character, 2, 34);
      return context.getImageData(0, 0, 40, 40).data.join();
    };
    return drawn("模") !== drawn("级");
  };

  let theme = remembered("theme");
  let listener = () => {};
  const isDark = () => (theme ? theme === "dark" : prefersDark.matches);
  const showLanguage = (language) => {
    root.lang = language;
    document.title = language === "en" ? english : root.dataset.titleZh ?? english;
    [buttons.language.textContent, buttons.language.lang] = WORDS[language].other;
    for (const one of document.querySelectorAll("[data-zh]"))
      one.setAttribute("aria-label", language === "en" ? one.dataset.en : one.dataset.zh);
    for (const one of document.querySelectorAll("option[data-text-zh]"))
      one.textContent = language === "en" ? one.dataset.textEn : one.dataset.textZh;
  };
  const show = () => {
    root.style.colorScheme = theme ?? "";
    const words = WORDS[root.lang];
    buttons.theme.textContent = words.theme[Number(isDark())];
    buttons.theme.setAttribute("aria-pressed", String(isDark()));
    buttons.theme.setAttribute("aria-label", words.use[Number(isDark())]);
    listener();
  };

  buttons.theme.addEventListener("click", () => {
    theme = isDark() ? "light" : "dark";
    remember("theme", theme);
    show();
  });
  buttons.language.addEventListener("click", () => {
    showLanguage(root.lang === "en" ? "zh-CN" : "en");
    remember("language", root.lang);
    show();
  });
  prefersDark.addEventListener("change", show);
  addEventListener("beforeprint", () => (root.style.colorScheme = "light"));
  addEventListener("afterprint", show);
  const chosen = remembered("language");
  const wanted = WORDS[chosen] ? chosen : navigator.language?.startsWith("zh") ? "zh-CN" : "en";
  const possible = drawsChinese();
  showLanguage(possible ? wanted : "en");
  if (!possible) {
    buttons.language.lang = "en";
    buttons.language.textContent = "English only";
    buttons.language.disabled = true;
    buttons.language.title = "Chinese needs a font with Chinese characters; this browser has none.";
  }
  return {
    show,
    /** Has a function called whenever colours or language have changed. */
    listen: (one) => (listener = one),
  };
})();
