//! A guest that does harm is made harmless, on a real machine; and its configuration is changed while it runs.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{self, Start};
use crate::lab::{BOOT, Lab, SOON};
use crate::rows::{address, ask};
use std::fs;

#[test]
fn a_database_that_answers_wrongly_is_cut_off_until_a_person_releases_it() {
    let lab = Lab::running("");
    let start = Start::of(&lab, "orders");
    let place = address(&lab);
    assert!(ask(&place, "select 1").is_some());

    let right = fs::read_to_string(lab.config()).unwrap();
    let restart = right.lines().find(|line| line.starts_with("restart")).unwrap();
    let wrong =
        "expect = \"7\"\ncheck = [\"sh\", \"-c\", \"exit 1\"]\n[vm.orders.recover]\nisolate = \"network\"";
    fs::write(lab.config(), right.replace(restart, wrong)).unwrap();
    let told = lab.json(&["reload"]);
    let at_once = told["changed"][0]["at_once"].as_array().unwrap();
    assert!(at_once.iter().any(|setting| setting == "app.postgres"), "{told}");
    lab.until(BOOT, "it is cut off", |lab| !lab.vm("orders")["isolated"]["since"].is_null());
    let vm = lab.vm("orders");
    assert_eq!((vm["state"].as_str(), vm["isolated"]["how"].as_str()), (Some("held"), Some("network")));
    assert_eq!(ask(&place, "select 1"), None, "nobody is answered wrongly any more");
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());

    fs::write(lab.config(), &right).unwrap();
    assert!(lab.cli(&["reload"]).status.success());
    hands::told(&lab, &["vm", "release", "orders"]);
    lab.until(SOON, "it answers again", |_| ask(&place, "select 1").is_some());
    lab.wait_well(BOOT);
    assert!(lab.vm("orders")["isolated"].is_null());
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}
