"use strict";
(() => {
  const root = document.documentElement;
  const button = { language: document.getElementById("language"), theme: document.getElementById("theme") };
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const WORDS = {
    en: { title: "Levels of models", dark: "Dark", light: "Light", other: "中文", otherLang: "zh-CN" },
    "zh-CN": { title: "模型等级", dark: "深色", light: "浅色", other: "English", otherLang: "en" },
  };

  // Storage may be forbidden, for files above all: then a choice holds until the page is closed.
  const remembered = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const remember = (key, value) => {
    try {
      localStorage.setItem(key, value);
    } catch {
      // see above
    }
  };

  let theme = remembered("certify-theme");
  const isDark = () => (theme ? theme === "dark" : prefersDark.matches);
  const words = () => WORDS[root.lang];
  const showTheme = () => {
    root.style.colorScheme = theme ?? "";
    button.theme.textContent = isDark() ? words().light : words().dark;
    button.theme.setAttribute("aria-pressed", String(isDark()));
  };
  const showLanguage = (language) => {
    root.lang = language;
    document.title = words().title;
    button.language.textContent = words().other;
    button.language.lang = words().otherLang;
    for (const one of document.querySelectorAll("[data-zh]"))
      one.setAttribute("aria-label", language === "en" ? one.dataset.en : one.dataset.zh);
    showTheme();
  };

  button.theme.addEventListener("click", () => {
    theme = isDark() ? "light" : "dark";
    remember("certify-theme", theme);
    showTheme();
  });
  button.language.addEventListener("click", () => {
    const language = root.lang === "en" ? "zh-CN" : "en";
    remember("certify-language", language);
    showLanguage(language);
  });
  prefersDark.addEventListener("change", showTheme);
  addEventListener("beforeprint", () => (root.style.colorScheme = "light"));
  addEventListener("afterprint", showTheme);
  const asked = remembered("certify-language");
  showLanguage(WORDS[asked] ? asked : navigator.language?.startsWith("zh") ? "zh-CN" : "en");
})();
