//! A page of HTML that needs nothing else: no script, nothing from elsewhere, light and dark.

use std::fs::{File, canonicalize, metadata, remove_file};
use std::io::{Error, ErrorKind};
use std::path::Path;

/// Whether a page can be written there, found out before the work for it begins. What is there stays as it is; of a
/// pipe or a device nothing is found out.
///
/// # Errors
/// If it cannot.
pub fn is_writable(page: &Path) -> Result<(), Error> {
    match metadata(page) {
        Ok(there) if there.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(there) if !there.is_file() => Ok(()),
        Ok(_) => File::options().write(true).open(page).map(drop),
        Err(_) => {
            File::options().write(true).create(true).truncate(false).open(page)?;
            remove_file(canonicalize(page)?) // it was not there: only this look made it
        }
    }
}

/// A whole page. The title is any text; style and body are HTML, in which every text was escaped.
pub fn whole(title: &str, style: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// Text that HTML takes for text, without control characters.
pub fn escape(text: &str) -> String {
    let tamed = crate::config::tame(text);
    tamed
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// What all pages look like.
const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; }
svg text { font-size: 12px; fill: currentColor; opacity: .75; }
table { border-collapse: collapse; width: 100%; margin-top: 1rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_stranger_wrote_is_markup_a40() {
        let page = whole("<script>alert('x')</script>\u{202e}\x1b", "", &escape("\"><img src=x onerror=y>"));
        assert!(
            !page.contains("<script")
                && !page.contains("<img")
                && !page.contains('\u{202e}')
                && !page.contains('\x1b')
        );
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("default-src 'none'"));
    }
}
