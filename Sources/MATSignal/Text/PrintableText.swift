extension String {
    /// The text with everything replaced by `\u{…}` that does not print as a character in its place: line ends, control characters,
    /// and the marks that change the direction of writing.
    ///
    /// TEXT options and DNS names come from strangers. Written to a log or a terminal as they are, they could forge lines or take
    /// over the terminal.
    public var printable: String {
        guard unicodeScalars.contains(where: { !$0.isPrintable }) else { return self }
        var result = ""
        for scalar in unicodeScalars {
            if scalar.isPrintable {
                result.unicodeScalars.append(scalar)
            } else {
                result += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
        return result
    }
}

extension Unicode.Scalar {
    fileprivate var isPrintable: Bool {
        if value >= 0x20, value < 0x7F { return true }
        switch properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: return false
        default: return true
        }
    }
}
