//! Incidents of the host itself: they are told, and nothing is done to the host.

use super::Engine;
use crate::diagnosis::brings;
use crate::evidence::Lens;
use crate::incident::{Incident, IncidentId, Resolution};
use crate::subject::{HostName, Subject};
use crate::time::Duration;

impl Engine {
    /// Looks at the host after something about it was seen.
    pub(super) fn consider_host(&mut self) {
        let lens = Lens {
            now: self.now,
            fresh: Duration::from_secs(10),
            hang_after: Duration::from_secs(10),
            trust_silence: true,
            patience: 1,
            booting: false,
            excused: false,
        };
        let mut evidence = Vec::new();
        self.view.speak_of_host(&lens, &mut evidence);
        if evidence.is_empty() && self.host_incidents.is_empty() {
            return;
        }
        let found = self.catalogue.diagnose_host(&evidence);
        let Some(host) = self.host.clone() else { return };
        self.update_host_incidents(&host, found);
    }

    fn update_host_incidents(&mut self, host: &HostName, found: Vec<crate::diagnosis::Diagnosis>) {
        let now = self.now;
        let healed: Vec<_> = self
            .host_incidents
            .iter()
            .filter(|(fault, _)| !found.iter().any(|d| d.fault == **fault))
            .map(|(fault, id)| (*fault, *id))
            .collect();
        for (fault, id) in healed {
            self.host_incidents.remove(&fault);
            if let Some(incident) = self.edit(id) {
                incident.times.closed = Some(now);
                incident.tell(now, "closed", "went away by itself".into());
                incident.phase = crate::incident::Phase::Closed(Resolution::Healed);
            }
        }
        for diagnosis in found {
            let fault = diagnosis.fault;
            let id = match self.host_incidents.get(&fault).copied() {
                Some(id) => {
                    let open = self.incidents.get_mut(&id);
                    if !open.is_some_and(|incident| incident.revise_of_host(now, &diagnosis)) {
                        continue;
                    }
                    id
                }
                None => {
                    let id = self.next_incident();
                    let subject = Subject::Host(host.clone());
                    self.host_incidents.insert(fault, id);
                    self.open(Incident::only_told(id, now, subject, diagnosis))
                }
            };
            self.tell_of_host(id);
        }
        self.join_to_causes();
    }

    /// What a fault of the host brings upon its VMs is part of that: one trouble, and one to be told of.
    pub(super) fn join_to_causes(&mut self) {
        if self.host_incidents.is_empty() {
            return;
        }
        let confirmed = |id: &IncidentId| self.incidents.get(id).is_some_and(Incident::is_confirmed);
        let causes: Vec<_> = self.host_incidents.iter().filter(|(_, id)| confirmed(id)).collect();
        let of_vms = self.vms.values().flat_map(super::VmState::open_incidents);
        let alone = |id: &IncidentId| self.incidents.get(id).filter(|incident| incident.cause.is_none());
        let mut joined = Vec::new();
        for incident in of_vms.filter_map(|id| alone(&id)).filter(|incident| incident.is_confirmed()) {
            let cause = causes.iter().find(|(fault, _)| brings(**fault, incident.fault()));
            joined.extend(cause.map(|(_, cause)| (incident.id, **cause)));
        }
        for (id, cause) in joined {
            let Some(says) = self.incidents.get(&cause).map(|incident| incident.fault()) else { continue };
            if let Some(incident) = self.edit(id) {
                incident.cause = Some(cause);
            }
            self.tell(id, "note", format!("it follows from {cause}, {says}"));
        }
    }

    fn tell_of_host(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let confirmed = incident.is_confirmed();
        let certainty = if confirmed { "confirmed" } else { "suspected" };
        let text = self.describe(&incident.subject.to_string(), &incident.diagnosis, certainty);
        self.tell(id, "diagnosis", text);
        if confirmed {
            self.tell(id, "held", "Holdfast tells, and does nothing to the host".into());
        }
    }
}
