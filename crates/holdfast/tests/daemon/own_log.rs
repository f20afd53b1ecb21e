//! What the daemon writes on standard error.

use crate::quiet::{Quiet, vm};
use std::path::Path;

#[test]
fn a_log_that_goes_into_a_file_has_no_colours() {
    let mut daemon = Quiet::new(&vm("a", ""));
    daemon.start(&[("NO_COLOR", Path::new(""))]); // as if nobody had said so
    daemon.stop();
    let log = daemon.log();
    assert!(log.contains("Holdfast runs") && !log.contains('\u{1b}'), "{log:?}");
}
