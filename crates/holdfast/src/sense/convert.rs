//! From what the configuration says of an application to the question that is asked.

use super::probe::{self, Probe, Tls};
use crate::act::chain;
use crate::config::{self, AppConfig, Target, VmConfig};
use holdfast_core::signal::{AppSign, ProbeFailure};
use holdfast_drivers::Places;
use holdfast_drivers::qemu::Network;
use std::net::IpAddr;

/// A port is forwarded when a VM is started, and not later.
const NO_WAY: &str = "no port of this host leads to it; it will from the next start of its vm on";

/// Where a target is reached from this host: as configured, or as the driver forwards it.
pub fn resolve(target: &config::Target, places: &Places) -> Option<(String, u16)> {
    match target {
        config::Target::Address(host, port) => Some((host.clone(), *port)),
        config::Target::Guest(port) => {
            let (_, at) = places.ports.iter().find(|(guest, _)| guest == port)?;
            Some((at.ip().to_string(), at.port()))
        }
    }
}

/// Where the guest's own kernel is reached: on a tap network, at the address its applications are asked at.
/// Behind user networking the host itself would answer, so nobody is asked.
pub fn address(vm: &VmConfig) -> Option<(IpAddr, u16)> {
    if !matches!(vm.spec.network, Network::Tap { .. }) {
        return None;
    }
    vm.apps.values().find_map(|app| match app.probe.target()? {
        Target::Address(host, port) => Some((host.parse().ok()?, *port)),
        Target::Guest(_) => None,
    })
}

/// The question, or the sign that it cannot be asked.
pub fn probe(app: &AppConfig, places: &Places) -> Result<Probe, AppSign> {
    let internal = |text: String| AppSign::Failed { how: ProbeFailure::Internal, text };
    let password = match app.password.as_ref().map(config::Secret::read).transpose() {
        Ok(password) => password.map(|password| probe::Password(password.reveal().to_owned())),
        Err(cause) => return Err(internal(chain(&cause))),
    };
    let at = match app.probe.target().map(|target| resolve(target, places)) {
        Some(Some((host, port))) => Some(probe::Target { host, port }),
        Some(None) => return Err(internal(NO_WAY.into())),
        None => None,
    };
    Ok(match (&app.probe, at) {
        (config::Probe::Postgres { user, db, query, expect, .. }, Some(at)) => {
            Probe::Postgres(probe::Postgres {
                at,
                user: user.clone(),
                password,
                database: db.clone(),
                query: query.clone(),
                expect: expect.clone(),
                write: app.write,
                written: None,
            })
        }
        (config::Probe::Mysql { user, db, query, expect, .. }, Some(at)) => Probe::Mysql(probe::Mysql {
            at,
            user: user.clone(),
            password,
            database: db.clone(),
            query: query.clone(),
            expect: expect.clone(),
        }),
        (config::Probe::Redis { user, db, .. }, Some(at)) => Probe::Redis(probe::Redis {
            at,
            user: user.clone(),
            password,
            database: *db,
            key: None,
            expect: None,
        }),
        (config::Probe::Http { tls, host, path, status, contains, .. }, Some(at)) => {
            Probe::Http(probe::Http {
                at,
                tls: if *tls { Some(Tls::public().map_err(|cause| internal(chain(&cause)))?) } else { None },
                name: if *tls { without_port(host).to_owned() } else { host.clone() },
                path: path.clone(),
                status: Some(*status),
                contains: contains.clone(),
            })
        }
        (config::Probe::Tcp { .. }, Some(at)) => Probe::Tcp(probe::Tcp { at, banner: None }),
        (config::Probe::Command { argv }, _) => Probe::Command(probe::Command { argv: argv.clone() }),
        (_, None) => return Err(internal("it has no address".into())),
    })
}

/// The name that a certificate must be for.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}
