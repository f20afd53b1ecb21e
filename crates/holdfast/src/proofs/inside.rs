//! What is asked of a point in its sandbox: what is configured for the VM, turned so that nobody else can answer.

use crate::config::{AppConfig, Probe, Target, VmConfig};
use crate::sense::convert;
use holdfast_core::subject::AppName;
use holdfast_drivers::qemu::Network;
use std::net::Ipv4Addr;

/// An application, as it is reached in the sandbox.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Its name.
    pub name: AppName,
    /// It, asked at a port of the guest; or why it is not.
    pub app: Result<AppConfig, &'static str>,
    /// What the guest agent runs once it answers.
    pub checks: Vec<Check>,
}

/// A check that the guest agent runs.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is called.
    pub name: &'static str,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// The status of a check that cannot be made there.
pub const NOT_HERE: i64 = 90;

/// A command of the host asks whatever it likes: the VM itself, most of the time.
const COMMAND: &str = "a command of this host would ask the vm itself";
const ELSEWHERE: &str = "its address is none of the guest's, so the vm itself might answer";
const WIRELESS: &str = "the vm has no network";

/// All applications of a VM.
pub fn apps(vm: &VmConfig) -> Vec<Inside> {
    let inside = |(name, app): (&AppName, &AppConfig)| {
        let turned = turned(vm, app);
        Inside { name: name.clone(), checks: checks(app), app: turned }
    };
    vm.apps.iter().map(inside).collect()
}

/// The ports of the guest that are asked.
pub fn ports(apps: &[Inside]) -> Vec<u16> {
    let port = |inside: &Inside| inside.app.as_ref().ok()?.probe.target().map(Target::port);
    let mut ports: Vec<u16> = apps.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The address that the guest gave itself, as far as the configuration tells.
pub fn address(vm: &VmConfig) -> Option<Ipv4Addr> {
    match convert::address(vm)?.0 {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

fn turned(vm: &VmConfig, app: &AppConfig) -> Result<AppConfig, &'static str> {
    let target = app.probe.target().ok_or(COMMAND)?;
    let port = match (target, &vm.spec.network) {
        (_, Network::None) => return Err(WIRELESS),
        (Target::Guest(port), _) => *port,
        (Target::Address(host, port), Network::User(forwards)) => {
            let leads = |listen: std::net::SocketAddr| listen.port() == *port && is_here(host);
            forwards.iter().find(|forward| leads(forward.listen)).ok_or(ELSEWHERE)?.guest
        }
        (Target::Address(host, port), Network::Tap { .. }) => {
            let own = address(vm).map(|address| address.to_string());
            if own.as_deref() == Some(host) { *port } else { return Err(ELSEWHERE) }
        }
    };
    let mut app = app.clone();
    if let Some(target) = app.probe.target_mut() {
        *target = Target::Guest(port);
    }
    Ok(app)
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn checks(app: &AppConfig) -> Vec<Check> {
    let own = app.check.clone().map(|argv| Check { name: "its check", argv });
    let Probe::Postgres { target, db, .. } = &app.probe else { return own.into_iter().collect() };
    let words = ["/bin/sh", "-c", AMCHECK, "amcheck"].map(ToOwned::to_owned);
    let argv = words.into_iter().chain([target.port().to_string(), db.clone()]).collect();
    own.into_iter().chain([Check { name: "pg_amcheck", argv }]).collect()
}

/// Reads every table and every B-tree index of a PostgreSQL server, on the port that is named, and checks them (pg_amcheck,
/// PostgreSQL documentation; pages with checksums are checked by being read). Its last line says what there was. A
/// throw-away copy may have the extension installed that this needs.
const AMCHECK: &str = r#"
for process in /proc/[0-9]*; do
  if [ "$(cat "$process/comm" 2>/dev/null)" = postgres ]; then
    bin=$(readlink "$process/exe") && owner=$(stat -c %U "$process") && break
  fi
done
if [ -z "${bin-}" ]; then echo 'there is no process of PostgreSQL'; exit 90; fi
bin=${bin%' (deleted)'} bin=${bin%/*}
if ! [ -x "$bin/pg_amcheck" ]; then echo 'the guest has no pg_amcheck'; exit 90; fi
at=$(sed -n "s|^.* \(/.*\)/\.s\.PGSQL\.$1\$|\1|p" /proc/net/unix | head -n 1)
run() { su -s /bin/sh "$owner" -c 'exec "$0" "$@"' -- "$@"; }
said=$(cd / && run "$bin/pg_amcheck" --all --install-missing -h "$at" -p "$1" 2>&1) || {
  code=$?
  printf '%s\n' "$said" | tail -n 5
  [ $code = 2 ] || exit 90
  exit 1
}
ask() { run "$bin/psql" -X -q -A -t -h "$at" -p "$1" -d "$2" -c "set statement_timeout = '30s'" -c "$3" 2>/dev/null; }
databases=$(ask "$1" "$2" "select count(*) || ' databases, ' || pg_size_pretty(sum(pg_database_size(oid)))
  from pg_database where datallowconn")
rows=$(ask "$1" "$2" "select coalesce(sum((xpath('/row/c/text()', query_to_xml(
    format('select count(*) as c from %I.%I', schemaname, tablename), true, true, '')))[1]::text::bigint), 0)
  from pg_tables where schemaname not in ('pg_catalog', 'information_schema')")
echo "nothing wrong in ${databases:-any database}; ${rows:-too many to count} rows in $2"
"#;
