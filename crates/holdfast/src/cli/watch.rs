//! `holdfast watch`: the status and what happens, live in the terminal.

use super::status::render;
use super::{CliError, Exit};
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

/// Shows the status until `q`. When piped it prints it once.
pub async fn watch(client: &Client) -> Result<Exit, CliError> {
    let first: StatusDoc = client.get("/api/v1/status").await?;
    if !std::io::stdout().is_terminal() {
        super::paint::text(&render(&first));
        return Ok(Exit::Fine);
    }
    let mut terminal = ratatui::init();
    let ended = live(client, &mut terminal).await;
    ratatui::restore();
    ended
}

async fn live(client: &Client, terminal: &mut DefaultTerminal) -> Result<Exit, CliError> {
    let io = |source| CliError::Io { what: "draw on the terminal".into(), source };
    loop {
        let status: Result<StatusDoc, _> = client.get("/api/v1/status").await;
        let events: Vec<Event> = client.get("/api/v1/events?limit=200").await.unwrap_or_default();
        terminal
            .draw(|frame| draw(frame, status.as_ref().map_err(ToString::to_string), &events))
            .map_err(io)?;
        if pressed_quit(REFRESH).map_err(io)? {
            return Ok(Exit::Fine);
        }
    }
}

fn pressed_quit(patience: Duration) -> std::io::Result<bool> {
    if !event::poll(patience)? {
        return Ok(false);
    }
    Ok(matches!(event::read()?, Key::Key(key) if key.code == KeyCode::Char('q') || key.code == KeyCode::Esc
        || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))))
}

fn draw(frame: &mut Frame<'_>, status: Result<&StatusDoc, String>, events: &[Event]) {
    let [above, below, foot] =
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)])
            .areas(frame.area());
    let body = match status {
        Ok(status) => tinted(status),
        Err(why) => Text::styled(format!("{why}: trying again"), Style::new().fg(Color::Red)),
    };
    frame.render_widget(Paragraph::new(body).block(Block::bordered().title(" holdfast ")), above);
    let room = usize::from(below.height.saturating_sub(2));
    let lines: Vec<Line<'_>> = events.iter().rev().take(room).rev().map(event_line).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" what happened ")), below);
    let foot_text = Span::styled(" q quit", Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Paragraph::new(foot_text), foot);
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
    for vm in &status.vms {
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
                Span::styled(seen.detail.clone(), Style::new().add_modifier(Modifier::DIM)),
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
