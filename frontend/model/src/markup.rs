//! What is painted as text: large tables and pictures, which as views would be many times the code.

/// Text from elsewhere, for between tags and within quoted attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
