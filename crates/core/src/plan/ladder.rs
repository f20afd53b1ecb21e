//! Which remedies fit which fault, gentlest first, and which one is next.

use super::remedy::Remedy;
use crate::action::Rewind;
use crate::diagnosis::{Fault, Lessons};
use crate::point::WayBack;
use crate::policy::VmPolicy;
use crate::subject::AppName;
use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// What will be done, and what will be watched afterwards. Never edited, only replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The remedy.
    pub remedy: Remedy,
    /// How sure we had to be, in parts of ten thousand.
    pub threshold: u16,
    /// Which try in the budget's window this is, from 1.
    pub try_number: u32,
    /// How many there are.
    pub tries: u32,
    /// How long everything must answer before it counts.
    pub verify_for: Duration,
    /// Why this one, for people.
    pub why: String,
    /// The restore point that is gone back to.
    #[serde(default)]
    pub to: Option<Rewind>,
    /// Who approved it, if a person did: then it is none of the tries.
    #[serde(default)]
    pub approved_by: Option<String>,
}

/// What stands in the way of remedies, besides what was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Ways {
    /// The virtual cable is unplugged.
    pub unplugged: bool,
    /// To which snapshot `resume` goes, or why it goes to none.
    pub resume: Result<WayBack, &'static str>,
    /// To which snapshot `revert` goes, or why it goes to none.
    pub revert: Result<WayBack, &'static str>,
    /// To which backup `restore` goes, or why it goes to none.
    pub restore: Result<WayBack, &'static str>,
}

impl Ways {
    /// Where this remedy goes back to.
    #[must_use]
    pub fn back(&self, remedy: Remedy) -> Option<&WayBack> {
        let way = match remedy {
            Remedy::Resume => &self.resume,
            Remedy::Revert => &self.revert,
            Remedy::Restore => &self.restore,
            Remedy::ResumeIo
            | Remedy::Reconnect
            | Remedy::RestartApp
            | Remedy::ResetGuest
            | Remedy::RestartVm
            | Remedy::FailOver
            | Remedy::Hold => return None,
        };
        way.as_ref().ok()
    }
}

/// The remedies that can end a fault, gentlest first. Those that go back to a restore point come last, as what came
/// after it is lost to users; `fail-over` is not there yet; `hold` ends every ladder.
#[must_use]
pub const fn ladder(fault: Fault) -> &'static [Remedy] {
    use Remedy::{Hold, Reconnect, ResetGuest, RestartApp, RestartVm, Restore, Resume, ResumeIo, Revert};
    match fault {
        Fault::AppDown | Fault::AppHung => {
            &[RestartApp, ResetGuest, RestartVm, Resume, Revert, Restore, Hold]
        }
        Fault::AppWrong | Fault::AppCrashLoop => &[RestartApp, Resume, Revert, Restore, Hold],
        Fault::CorruptionReported | Fault::ImageCorrupt => &[Resume, Revert, Restore, Hold],
        Fault::GuestOutOfMemory => &[RestartApp, ResetGuest, RestartVm, Hold],
        Fault::GuestPanicked | Fault::GuestHung => &[ResetGuest, RestartVm, Resume, Revert, Restore, Hold],
        Fault::GuestFsReadOnly => &[ResetGuest, RestartVm, Resume, Revert, Restore, Hold],
        Fault::GuestBootFailed => &[ResetGuest, RestartVm, Resume, Revert, Restore, Hold],
        Fault::GuestBootLoop => &[RestartVm, Resume, Revert, Restore, Hold],
        Fault::GuestNetLost => &[Reconnect, ResetGuest, RestartVm, Hold],
        Fault::ImageLost => &[Restore, Hold],
        Fault::VmCrashed | Fault::VmHung | Fault::VmWontStart => &[RestartVm, Hold],
        Fault::VmPausedIo => &[ResumeIo, Hold],
        Fault::AppCutOff
        | Fault::AppSlow
        | Fault::OutOfConnections
        | Fault::ReplicationBroken
        | Fault::LockPileUp
        | Fault::GuestDiskFull
        | Fault::StorageSlow
        | Fault::StorageLost
        | Fault::HostFailing
        | Fault::HostNetLost
        | Fault::HostOverloaded
        | Fault::HostDiskFull
        | Fault::ProbeBroken
        | Fault::ObserverSlow
        | Fault::RestorePointsStale => &[Hold],
    }
}

/// The gentlest remedy that is left for this fault, and why the gentler ones are not. With lessons that are to be used,
/// in the order that was learned.
#[must_use]
pub fn choose(
    fault: Fault,
    lessons: Option<&Lessons>,
    app: Option<&AppName>,
    policy: &VmPolicy,
    tried: &[Remedy],
    ways: &Ways,
) -> (Remedy, String) {
    let mut passed = Vec::new();
    let mut order = ladder(fault).to_vec();
    if let Some((learned, why)) = lessons.and_then(|lessons| lessons.order(fault, &order)) {
        order = learned;
        passed.push(why);
    }
    for remedy in order {
        match obstacle(fault, remedy, app, policy, tried, ways) {
            Some(why) => passed.push(format!("{remedy} passed over: {why}")),
            None => return (remedy, passed.join("; ")),
        }
    }
    (Remedy::Hold, passed.join("; "))
}

/// A remedy that did not help is not tried again in the same incident, but for starts and resumptions,
/// which the budget and the back-off bound, and for older restore points.
fn obstacle(
    fault: Fault,
    remedy: Remedy,
    app: Option<&AppName>,
    policy: &VmPolicy,
    tried: &[Remedy],
    ways: &Ways,
) -> Option<&'static str> {
    let Some(needed) = remedy.needs() else { return Some("not in this version") };
    if needed.iter().any(|ability| !policy.abilities.contains(ability)) {
        return Some("the driver cannot");
    }
    let again = matches!(
        remedy,
        Remedy::RestartVm
            | Remedy::ResumeIo
            | Remedy::Resume
            | Remedy::Revert
            | Remedy::Restore
            | Remedy::Hold
    );
    let goes_back = ways.resume.is_ok() || ways.revert.is_ok() || ways.restore.is_ok();
    let in_vain = remedy == Remedy::RestartVm && goes_back && ladder(fault).contains(&Remedy::Restore);
    if tried.contains(&remedy) && (!again || in_vain) {
        return Some("tried in this incident");
    }
    let restartable = |name: &AppName| policy.apps.get(name).is_some_and(|app| app.can_restart);
    match remedy {
        Remedy::RestartApp if fault == Fault::GuestOutOfMemory => {
            (!policy.apps.keys().any(restartable)).then_some("no restart command is configured")
        }
        Remedy::RestartApp => (!app.is_some_and(restartable)).then_some("no restart command is configured"),
        Remedy::Reconnect => (!ways.unplugged).then_some("the virtual cable is plugged in"),
        Remedy::Resume => ways.resume.as_ref().err().copied(),
        Remedy::Revert => ways.revert.as_ref().err().copied(),
        Remedy::Restore => ways.restore.as_ref().err().copied(),
        Remedy::ResumeIo | Remedy::ResetGuest | Remedy::RestartVm | Remedy::FailOver | Remedy::Hold => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::{Grade, Known, SnapshotId};
    use crate::policy::{Ability, AppPolicy};
    use crate::written::Marks;

    fn policy() -> (VmPolicy, AppName) {
        let app: AppName = "postgres".parse().expect("a name");
        let mut policy = VmPolicy::default();
        policy.apps.insert(app.clone(), AppPolicy { can_restart: true });
        (policy, app)
    }

    const NONE: Ways =
        Ways { unplugged: false, resume: Err("none"), revert: Err("none"), restore: Err("none") };

    #[test]
    fn the_gentlest_remedy_that_is_left_is_taken() {
        let (policy, app) = policy();
        let next = |tried: &[Remedy]| choose(Fault::AppHung, None, Some(&app), &policy, tried, &NONE).0;
        assert_eq!(next(&[]), Remedy::RestartApp);
        assert_eq!(next(&[Remedy::RestartApp]), Remedy::ResetGuest);
        assert_eq!(next(&[Remedy::RestartApp, Remedy::ResetGuest]), Remedy::RestartVm);
    }

    #[test]
    fn a_plan_never_asks_for_more_than_the_driver_can_do() {
        let (mut policy, app) = policy();
        policy.abilities.remove(&Ability::Exec);
        policy.abilities.remove(&Ability::Reset);
        assert_eq!(choose(Fault::AppDown, None, Some(&app), &policy, &[], &NONE).0, Remedy::RestartVm);
        policy.abilities.remove(&Ability::PowerOff);
        assert_eq!(choose(Fault::AppDown, None, Some(&app), &policy, &[], &NONE).0, Remedy::Hold);
    }

    #[test]
    fn a_snapshot_is_gone_back_to_last_and_to_an_older_one_if_that_did_not_help() {
        let (policy, app) = policy();
        let known = |id| {
            let id = SnapshotId(id).into();
            Known {
                id,
                grade: Grade::Consistent,
                resumable: true,
                doubtful: false,
                age: Duration::ZERO,
                written: Marks::new(),
            }
        };
        let way = |id| Ok(WayBack { point: known(id), loses: Duration::ZERO });
        let next = |tried: &[Remedy], ways: &Ways| {
            choose(Fault::AppCrashLoop, None, Some(&app), &policy, tried, ways).0
        };
        let both = Ways { resume: way(2), revert: way(2), ..NONE };
        assert_eq!(next(&[], &both), Remedy::RestartApp);
        assert_eq!(next(&[Remedy::RestartApp], &both), Remedy::Resume);
        let older = Ways { resume: Err("none left"), revert: way(1), ..both };
        let tried = [Remedy::RestartApp, Remedy::Resume, Remedy::Revert];
        assert_eq!(next(&tried, &older), Remedy::Revert);
        assert_eq!(next(&tried, &Ways { restore: way(1), ..NONE }), Remedy::Restore);
        assert_eq!(next(&tried, &NONE), Remedy::Hold);
    }

    #[test]
    fn every_ladder_ends_with_a_person() {
        for row in crate::diagnosis::Catalogue::standard().iter() {
            assert_eq!(ladder(row.fault).last(), Some(&Remedy::Hold));
        }
    }
}
