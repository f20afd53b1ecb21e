//! Whether users are served while an incident is open: only the time in which they are not is an outage.

use super::{Engine, VmState};
use crate::diagnosis::{Diagnosis, Grounds, is_warning};
use crate::evidence::Lens;
use crate::incident::{IncidentId, Phase};
use crate::recover::Power;
use crate::subject::{AppName, VmName};

impl Engine {
    /// An open incident is looked at: its outage begins when users are no longer served, and one that is merely told
    /// of may last longer than its outage.
    pub(super) fn follow_service(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<&Diagnosis>,
        lens: &Lens,
    ) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get_mut(&id)) else { return };
        if matches!(incident.phase, Phase::Recovering | Phase::Verifying { .. } | Phase::Closed(_)) {
            return; // whether the remedy helped is for its verification to say
        }
        let app = incident.app().cloned();
        let served = is_served(vm, app.as_ref(), found, lens);
        if incident.times.serving && !served {
            incident.times.serving = false;
            incident.times.down_since = vm.view.served(lens, app.as_ref()).unwrap_or(lens.now);
        }
        let again = vm.view.healthy_since(lens).unwrap_or(lens.now).max(incident.times.down_since);
        let is_over = served && is_warning(incident.fault());
        incident.times.served = is_over.then(|| *incident.times.served.get_or_insert(again));
    }

    /// What is done about it takes the service away, if it was there.
    pub(super) fn interrupt_service(&mut self, id: IncidentId) {
        let now = self.now;
        if let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.times.serving) {
            incident.times.serving = false;
            incident.times.down_since = now;
        }
    }
}

/// Its applications answer, those of the incident if it is about one, and nothing shows for certain that it is down.
pub(super) fn is_served(vm: &VmState, app: Option<&AppName>, found: Option<&Diagnosis>, lens: &Lens) -> bool {
    let sure = found.is_some_and(|diagnosis| matches!(diagnosis.grounds, Grounds::Conclusive(_)));
    let mut apps = vm.view.apps(lens).filter(|(name, ..)| app.is_none_or(|app| app == *name)).peekable();
    let answers = apps.peek().is_some() && apps.all(|(_, alive, _)| alive);
    answers && !sure && matches!(vm.power, Power::On(_))
}
