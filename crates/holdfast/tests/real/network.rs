//! A guest on a tap interface, in a network namespace of its own: the network channel has something to say.

use crate::hands::{Start, remedies_of};
use crate::lab::{BOOT, Lab, SOON};
use std::process::Command;

const TAP: &str = "hf0";
const HOST: &str = "10.213.7.1/24";
const GUEST: &str = "10.213.7.2";

/// A network namespace with a tap interface; gone with the test.
struct Space(String);

impl Space {
    fn new() -> Self {
        let space = Self(format!("hf-{}", std::process::id()));
        ip(&["netns", "add", &space.0]);
        for words in ["link set lo up", "tuntap add dev hf0 mode tap user nobody", "link set hf0 up"] {
            space.ip(words);
        }
        space.ip(&format!("addr add {HOST} dev {TAP}"));
        space
    }

    fn ip(&self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        ip(&[&["netns", "exec", &self.0, "ip"], words.as_slice()].concat());
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).status().expect("ip, package iproute2");
    assert!(done.success(), "ip {words:?}");
}

#[test]
fn a_guest_on_a_tap_interface_is_asked_by_its_address_and_its_lost_network_is_named() {
    let space = Space::new();
    let mut lab = Lab::changed(|config| {
        let config = config.replace("@guest/", &format!("@{GUEST}/"));
        let config = config.replace("panic=-1", &format!("panic=-1 hf.ip={GUEST}/24 hf.gw="));
        config.replace("accel = ", &format!("network = \"tap:{TAP}\"\naccel = "))
    });
    lab.namespace = Some(space.0.clone());
    lab.start();
    lab.wait_well(BOOT);
    assert_eq!(lab.vm("orders")["address"]["postgres"], format!("{GUEST}:5432"));
    let network = |lab: &Lab| lab.vm("orders")["channels"]["network"]["state"].clone();
    lab.until(SOON, "the guest is heard on the network", |lab| network(lab) == "ok");

    let packets = |lab: &Lab, way: &str| lab.vm("orders")["counters"][way].as_u64();
    assert!(packets(&lab, "packets_sent") > Some(0) && packets(&lab, "packets_received") > Some(0));

    let start = Start::of(&lab, "orders");
    lab.in_guest("orders", "ip link set eth0 down");
    let lost = lab.wait_closed("GuestNetLost", BOOT * 2); // its silence counts after 40 s, thrice that on a pressed host
    lab.wait_well(BOOT);
    assert_eq!(remedies_of(&lost), ["reset-guest"], "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    lab.until(SOON, "the guest is heard on the network again", |lab| network(lab) == "ok");
}
