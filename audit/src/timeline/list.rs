//! All sessions of a trace, one line each.

use serde::Serialize;

use super::Story;

/// One session in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Identity of the session.
    pub session: String,
    /// Which end tells.
    pub role: String,
    /// When it was created, in Unix milliseconds.
    pub born_ms: Option<u64>,
    /// Age at its last record.
    pub age_ms: Option<u64>,
    /// State after its last record.
    pub state: String,
    /// Why it ended.
    pub end: Option<String>,
    /// Committed switches.
    pub switches: usize,
    /// Recovery windows.
    pub recoveries: usize,
    /// Milliseconds outside ATTACHED, up to the last record.
    pub troubled_ms: u64,
}

/// The list of those stories.
pub fn summaries(stories: &[Story]) -> Vec<Summary> {
    let summary = |story: &Story| Summary {
        session: story.session.clone(),
        role: story.role.clone(),
        born_ms: story.born_ms,
        age_ms: story.age_ms(),
        state: story.state().to_owned(),
        end: story.end.clone(),
        switches: story.switches.len(),
        recoveries: story.windows.len(),
        troubled_ms: story
            .windows
            .iter()
            .map(|window| window.until_ms.unwrap_or(story.last_ms).saturating_sub(window.from_ms))
            .sum(),
    };
    stories.iter().map(summary).collect()
}
