//! Parameters of a request, read strictly: unknown names, doubles and empty values are refused with
//! a sentence, never ignored, because an ignored filter shows more than was asked for.

use serde_json::Value;
use url::form_urlencoded;

use super::problem::Problem;

/// At most this many parameters in one request.
const PARAMS_MAX: usize = 32;

/// The named parameters of one request.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a URL's query; every name must be in `known`.
    pub(super) fn from_url(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .take(PARAMS_MAX + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        Self::checked(pairs, known)
    }

    /// Reads a JSON object of the same names. Numbers may stand for their digits, lists of strings
    /// for a comma-separated list.
    pub(super) fn from_json(body: &[u8], known: &[&str]) -> Result<Self, Problem> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("the body is not valid JSON: {error}")))?;
        let Value::Object(object) = value else {
            return Err(Problem::bad_request("the body must be a JSON object"));
        };
        let mut pairs = Vec::with_capacity(object.len().min(PARAMS_MAX));
        for (name, value) in object.into_iter().take(PARAMS_MAX + 1) {
            if !value.is_null() {
                let text = json_text(&name, value)?;
                pairs.push((name, text));
            }
        }
        Self::checked(pairs, known)
    }

    fn checked(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Self, Problem> {
        if pairs.len() > PARAMS_MAX {
            return Err(Problem::bad_request("too many parameters"));
        }
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(Problem::bad_request(format!(
                    "the parameter {name:?} is unknown here. Known are: {}",
                    known.join(", ")
                )));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad_request(format!("the parameter {name:?} is given twice")));
            }
        }
        Ok(Self(pairs))
    }

    /// The others, for what reads them all.
    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| known != name).cloned().collect())
    }

    /// The value of a parameter; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::bad_request(format!("{name} must be a whole number from {min} to {max}"))),
        }
    }
}

fn json_text(name: &str, value: Value) -> Result<String, Problem> {
    let wrong = || Problem::bad_request(format!("{name} must be a string, a number, or a list of strings"));
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(list) => {
            let words: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            words.map(|words| words.join(",")).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_or_doubled_parameter_is_refused_by_name() {
        let unknown = Params::from_url(Some("q=a&limt=5"), &["q", "limit"]).unwrap_err();
        assert!(unknown.detail().contains("\"limt\""), "{}", unknown.detail());
        assert!(Params::from_url(Some("q=a&q=b"), &["q"]).unwrap_err().detail().contains("twice"));
    }

    #[test]
    fn a_json_body_says_the_same_as_a_url() {
        let json = br#"{"q":"table:users","limit":5,"fields":["id","sql"],"cursor":null}"#;
        let params = Params::from_json(json, &["q", "limit", "fields", "cursor"]).unwrap();
        assert_eq!(params.get("q"), Some("table:users"));
        assert_eq!(params.number("limit", 1, 1000).unwrap(), Some(5));
        assert_eq!(params.get("fields"), Some("id,sql"));
        assert_eq!(params.get("cursor"), None);
        assert!(Params::from_json(br#"{"q":{"a":1}}"#, &["q"]).is_err());
        assert!(Params::from_json(br#"[1]"#, &["q"]).is_err());
    }

    #[test]
    fn a_number_outside_its_bounds_is_refused() {
        let params = Params::from_url(Some("limit=1001"), &["limit"]).unwrap();
        assert!(params.number("limit", 1, 1000).is_err());
        let params = Params::from_url(Some("limit=-1"), &["limit"]).unwrap();
        assert!(params.number("limit", 1, 1000).is_err());
    }
}
