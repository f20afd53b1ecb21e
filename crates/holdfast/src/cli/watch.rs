//! `holdfast watch`: the status and what happens, live in the terminal.

use super::status::render;
use super::{CliError, Exit, paint, print_json_line};
use crate::api::shape::StatusDoc;
use crate::client::Client;
use crate::events::Event;
use ratatui::crossterm::event::{self, Event as Key, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Paragraph};
use ratatui::{DefaultTerminal, Frame};
use std::io::IsTerminal;
use std::time::Duration;

const REFRESH: Duration = Duration::from_millis(500);

/// Shows the status until `q`. When piped it prints it once; as JSON, a line for each time that it is looked at, until it
/// is ended.
pub async fn watch(client: &Client, json: bool) -> Result<Exit, CliError> {
    let first: StatusDoc = client.get("/api/v1/status").await?;
    if json {
        return lines(client, first).await;
    }
    if !std::io::stdout().is_terminal() {
        super::paint::text(&render(&first));
        return Ok(Exit::Fine);
    }
    let mut terminal = ratatui::init();
    let ended = live(client, &mut terminal).await;
    ratatui::restore();
    ended
}

/// The status twice a second, a line each. Whoever reads may go.
async fn lines(client: &Client, first: StatusDoc) -> Result<Exit, CliError> {
    let mut status = first;
    loop {
        print_json_line(&status)?;
        if paint::is_unread() {
            return Ok(Exit::Fine);
        }
        tokio::time::sleep(REFRESH).await;
        status = client.get("/api/v1/status").await?;
    }
}

async fn live(client: &Client, terminal: &mut DefaultTerminal) -> Result<Exit, CliError> {
    let io = |source| CliError::Io { what: "draw on the terminal".into(), source };
    let mut place = Place::default();
    loop {
        let status: Result<StatusDoc, _> = client.get("/api/v1/status").await;
        let events: Vec<Event> = client.get("/api/v1/events?limit=200").await.unwrap_or_default();
        let asked = std::time::Instant::now();
        loop {
            let shown = status.as_ref().map_err(ToString::to_string);
            terminal.draw(|frame| draw(frame, shown, &events, &mut place)).map_err(io)?;
            let Some(left) = REFRESH.checked_sub(asked.elapsed()) else { break };
            match pressed(left).map_err(io)? {
                Some(Pressed::Quit) => return Ok(Exit::Fine),
                Some(Pressed::Move(by)) => place.go(by),
                None => {}
            }
        }
    }
}

/// Which line of the status is at the top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    top: usize,
    /// Lines there are, and lines that fit.
    lines: usize,
    room: usize,
}

impl Place {
    /// Goes up or down, and no further than there is something to see.
    fn go(&mut self, by: Step) {
        let page = self.room.saturating_sub(1).max(1);
        self.top = match by {
            Step::Up => self.top.saturating_sub(1),
            Step::Down => self.top + 1,
            Step::PageUp => self.top.saturating_sub(page),
            Step::PageDown => self.top + page,
            Step::Top => 0,
            Step::Bottom => self.lines,
        };
        self.fit(self.lines, self.room);
    }

    fn fit(&mut self, lines: usize, room: usize) {
        (self.lines, self.room) = (lines, room);
        self.top = self.top.min(lines.saturating_sub(room));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
}

enum Pressed {
    Quit,
    Move(Step),
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all keys there are only these are ours")]
fn pressed(patience: Duration) -> std::io::Result<Option<Pressed>> {
    if !event::poll(patience)? {
        return Ok(None);
    }
    let Key::Key(key) = event::read()? else { return Ok(None) };
    let step = match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Ok(Some(Pressed::Quit)),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            return Ok(Some(Pressed::Quit));
        }
        KeyCode::Up | KeyCode::Char('k') => Step::Up,
        KeyCode::Down | KeyCode::Char('j') => Step::Down,
        KeyCode::PageUp => Step::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Step::PageDown,
        KeyCode::Home => Step::Top,
        KeyCode::End => Step::Bottom,
        _ => return Ok(None),
    };
    Ok(Some(Pressed::Move(step)))
}

fn draw(frame: &mut Frame<'_>, status: Result<&StatusDoc, String>, events: &[Event], place: &mut Place) {
    let [above, below, foot] =
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)])
            .areas(frame.area());
    let body = match status {
        Ok(status) => tinted(status),
        Err(why) => Text::styled(format!("{why}: trying again"), Style::new().fg(Color::Red)),
    };
    place.fit(body.lines.len(), usize::from(above.height.saturating_sub(2)));
    let more = place.lines.saturating_sub(place.top + place.room);
    let below_it = if more > 0 { format!(" {more} more lines below ") } else { String::new() };
    let block = Block::bordered().title(" holdfast ").title_bottom(below_it);
    let top = u16::try_from(place.top).unwrap_or(u16::MAX);
    frame.render_widget(Paragraph::new(body).block(block).scroll((top, 0)), above);
    let room = usize::from(below.height.saturating_sub(2));
    let lines: Vec<Line<'_>> = events.iter().rev().take(room).rev().map(event_line).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" what happened ")), below);
    let keys = if place.lines > place.room { " q quit  up/down, page up/down move" } else { " q quit" };
    frame.render_widget(Paragraph::new(Span::styled(keys, Style::new().add_modifier(Modifier::DIM))), foot);
}

fn tone(word: &str) -> Style {
    match super::paint::Tone::of(word) {
        super::paint::Tone::Good => Style::new().fg(Color::Green),
        super::paint::Tone::Warm => Style::new().fg(Color::Yellow),
        super::paint::Tone::Bad => Style::new().fg(Color::Red),
        super::paint::Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        super::paint::Tone::Bold => Style::new().add_modifier(Modifier::BOLD),
        super::paint::Tone::Plain => Style::new(),
    }
}

fn tinted(status: &StatusDoc) -> Text<'static> {
    let mut lines = vec![Line::from(vec![
        Span::raw(format!("host {}  ", status.host)),
        Span::styled(status.mode.clone(), tone(&status.mode)),
    ])];
    // What is not well comes first, so that it is seen among hundreds.
    let (sick, well): (Vec<_>, Vec<_>) = status.vms.iter().partition(|vm| vm.incident.is_some());
    for vm in sick.into_iter().chain(well) {
        let incident = vm.incident.map(|id| format!("  incident #{id}")).unwrap_or_default();
        lines.push(Line::default());
        lines.push(Line::from(vec![
            Span::styled(format!("vm {}  ", vm.name), Style::new().add_modifier(Modifier::BOLD)),
            Span::styled(vm.state.clone(), tone(&vm.state)),
            Span::raw(format!(
                "  protection {}  recoveries {} of {}",
                vm.protection, vm.tries, vm.tries_most
            )),
            Span::styled(incident, Style::new().fg(Color::Red)),
        ]));
        lines.extend(vm.note.as_ref().map(|note| Line::raw(format!("  {note}"))));
        if let Some(isolated) = &vm.isolated {
            lines.push(Line::from(vec![
                Span::styled("  isolated ", Style::new().fg(Color::Red)),
                Span::raw(super::status::isolation(&vm.name, isolated)),
            ]));
        }
        for app in &vm.apps {
            lines.push(Line::from(vec![
                Span::raw(format!("  app {}  ", app.name)),
                Span::styled(app.state.clone(), tone(&app.state)),
            ]));
        }
        let rests = vm.state == "stopped" && vm.incident.is_none();
        for channel in holdfast_core::signal::Channel::ALL.into_iter().filter(|_| !rests) {
            let Some(seen) = vm.channels.get(channel.name()) else { continue };
            lines.push(Line::from(vec![
                Span::raw(format!("    {:12}", channel.name())),
                Span::styled(format!("{:8}", seen.state), tone(&seen.state)),
                Span::styled(
                    format!("{:>7}  {}", super::status::lasts(seen), seen.detail),
                    Style::new().add_modifier(Modifier::DIM),
                ),
            ]));
        }
    }
    Text::from(lines)
}

fn event_line(event: &Event) -> Line<'static> {
    Line::from(vec![
        Span::styled(super::paint::clock(event.at), Style::new().add_modifier(Modifier::DIM)),
        Span::raw(format!("  #{:<4}", event.incident)),
        Span::styled(format!("{:10}", event.step), tone(&event.step)),
        Span::raw(event.text.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_no_further_than_there_is_something_to_see() {
        let mut place = Place::default();
        place.fit(25, 10);
        let mut go = |by| {
            place.go(by);
            place.top
        };
        assert_eq!([go(Step::Up), go(Step::Down), go(Step::PageDown), go(Step::PageDown)], [0, 1, 10, 15]);
        assert_eq!([go(Step::Down), go(Step::PageUp), go(Step::Bottom), go(Step::Top)], [15, 6, 15, 0]);
        go(Step::Bottom);
        place.fit(5, 10);
        assert_eq!(place.top, 0, "what became shorter is seen whole");
    }
}
