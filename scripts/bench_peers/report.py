"""The tables of scripts/bench-peers."""


def print_case(case, names):
    print(f"\n{case['name']}, {case['n_tokens']} tokens, threads: {case['threads']}")
    print(f"{'':<22}{'tokens/s':>10}{'per CPU s':>11}{'setting':>9}"
          f"{'exact is':>10}{'min-max':>14}{'fast is':>9}{'min-max':>14}")
    for name in names:
        row = case["sides"][name]
        line = f"{name:<22}{row['tokens_per_s']:>10.0f}{row['tokens_per_cpu_s']:>11.0f}"
        line += f"{row['setting'] or '':>9}"
        for ours, width in ("embedmill exact", 10), ("embedmill fast", 9):
            ratio = row[f"of {ours}"]
            line += f"{ratio['median']:>{width - 1}.2f}x"
            line += f"{ratio['min']:.2f}-{ratio['max']:.2f}".rjust(14)
        if "p50_ms" in row:
            line += f"   p50 {row['p50_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms"
        print(line)


def print_tables(result):
    print(f"{result['model']}; {result['cpu']} ({', '.join(result['cpu_features'])}), "
          f"{result['date']}; {result['rounds']} rounds in turns")
    print(result["versions"])
    for case in result["cases"]:
        print_case(case, list(case["sides"]))
    print(f"\n{'':<22}{'cosine to float32':>19}{'lowest':>10}{'own MiB':>9}{'resident':>10}"
          f"{'first vector, s':>17}")
    for name, row in result["quality"].items():
        print(f"{name:<22}{row['mean']:>19.5f}{row['min']:>10.5f}{row['anonymous_mib']:>9.0f}"
              f"{row['resident_mib']:>10.0f}{min(result['start_s'][name]):>17.2f}")
