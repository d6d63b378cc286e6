//! Light, dark, or as the machine has it. `index.html` applies the choice before the first paint; this changes it.

use leptos::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    System,
    Light,
    Dark,
}

impl Theme {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// The key under which the browser keeps it; `index.html` reads the same.
const KEY: &str = "longshore.theme";

fn storage() -> Option<web_sys::Storage> {
    window().local_storage().ok().flatten()
}

pub fn provide() {
    let kept = storage().and_then(|s| s.get_item(KEY).ok().flatten());
    let theme = match kept.as_deref() {
        Some("light") => Theme::Light,
        Some("dark") => Theme::Dark,
        _ => Theme::System,
    };
    let signal = RwSignal::new(theme);
    provide_context(signal);
    Effect::new(move |_| {
        let theme = signal.get();
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute("data-theme", theme.name());
        }
        if let Some(storage) = storage() {
            let _ = storage.set_item(KEY, theme.name());
        }
    });
}

pub fn theme() -> RwSignal<Theme> {
    expect_context()
}
