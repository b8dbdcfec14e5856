/// How the page looks, by light and in the dark.
enum ViewStyle {
    static let sheet = #"""
        :root {
            color-scheme: light dark;
            --ground: #fbfbfa; --panel: #ffffff; --ink: #1c2024; --quiet: #60686f; --line: #dfe2e5; --accent: #0b6bcb; --good: #1a7f4b; --bad: #b3261e;
            --warn: #8a5a00;
        }
        @media (prefers-color-scheme: dark) {
            :root {
                --ground: #14171a; --panel: #1c2024; --ink: #e7eaed; --quiet: #9aa3ab; --line: #343a40; --accent: #6db3f8; --good: #5fd39a; --bad: #ff8a80;
                --warn: #f0c060;
            }
        }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--ground); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
        header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; padding: 14px 20px; border-bottom: 1px solid var(--line); background: var(--panel); }
        header p { margin: 0; color: var(--quiet); }
        h1 { font-size: 18px; margin: 0; }
        h2 { font-size: 14px; margin: 0 0 8px; }
        #state { margin-left: auto; }
        #state.live { color: var(--good); }
        #state.lost { color: var(--bad); }
        main { padding: 16px 20px 40px; display: grid; gap: 16px; max-width: 1500px; margin: 0 auto; }
        section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; min-width: 0; }
        #problems { margin: 0; padding: 10px 14px 10px 32px; border: 1px solid var(--bad); border-radius: 8px; color: var(--bad); background: var(--panel); }
        #figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; background: none; border: 0; padding: 0; }
        .figure { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px; }
        .figure b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
        .figure span { color: var(--quiet); font-size: 12px; }
        .figure svg { display: block; width: 100%; height: 26px; margin-top: 4px; }
        .figure polyline { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
        .scroll { overflow-x: auto; max-height: 420px; overflow-y: auto; }
        table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
        th { text-align: left; color: var(--quiet); font-weight: 600; position: sticky; top: 0; background: var(--panel); }
        th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
        td.places { white-space: normal; overflow-wrap: anywhere; }
        .registered, .bound, .moved { color: var(--good); }
        .withdrawn, .expired, .ended, .visitor { color: var(--warn); }
        .revoked, .displaced { color: var(--bad); }
        .note { color: var(--quiet); margin: 8px 0 0; }
        label { color: var(--quiet); display: block; margin-bottom: 8px; }
        input { font: inherit; color: inherit; background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: 4px 8px; }
        #map { width: 100%; height: auto; display: block; }
        #map .network { fill: none; stroke: var(--line); }
        #map .node { fill: var(--good); }
        #map .node.gone { fill: var(--warn); }
        #map .talk { stroke: var(--accent); stroke-opacity: .45; fill: none; }
        #map .place { cursor: default; }
        #map.pointed .talk { stroke-opacity: .06; }
        #map.pointed .talk.on { stroke-opacity: .9; }
        #map .place.on text { fill: var(--ink); font-weight: 600; }
        #map text { fill: var(--quiet); font: 11px system-ui, sans-serif; }
        #map text.home { fill: var(--ink); font-size: 10px; }

        """#
}
