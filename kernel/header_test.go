package kernel

import (
	"embed"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// sources is this package, also where only the test binary is.
//
//go:embed *.go
var sources embed.FS

// inVocabulary are constants of the header that package ipvs has as values.
var inVocabulary = map[string]int64{
	"IP_VS_STATE_MASTER":              int64(ipvs.Master),
	"IP_VS_STATE_BACKUP":              int64(ipvs.Backup),
	"IP_VS_CONN_F_MASQ":               int64(ipvs.Masq),
	"IP_VS_CONN_F_LOCALNODE":          int64(ipvs.LocalNode),
	"IP_VS_CONN_F_TUNNEL":             int64(ipvs.Tunnel),
	"IP_VS_CONN_F_DROUTE":             int64(ipvs.DRoute),
	"IP_VS_CONN_F_BYPASS":             int64(ipvs.Bypass),
	"IP_VS_CONN_F_TUNNEL_TYPE_IPIP":   int64(ipvs.IPIP),
	"IP_VS_CONN_F_TUNNEL_TYPE_GUE":    int64(ipvs.GUE),
	"IP_VS_CONN_F_TUNNEL_TYPE_GRE":    int64(ipvs.GRE),
	"IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM":  int64(ipvs.NoCsum),
	"IP_VS_TUNNEL_ENCAP_FLAG_CSUM":    int64(ipvs.Csum),
	"IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM": int64(ipvs.RemCsum),
}

// unused are the constants without a use here, by regular expression, each with the
// reason.
var unused = map[string]string{
	`IP_VS_SO_.*|IP_VS_BASE_CTL`: "the old setsockopt interface: no IPv6, no 64-bit counters",
	`IPVS_CMD_SET_INFO`:          "implemented by no kernel",
	`IPVS_.*_UNSPEC|_?_?IPVS_.*_MAX|IP_VS_CONN_F_TUNNEL_TYPE_MAX`: "no values, bounds of enumerations",
	`IPVS_STATS_ATTR_PAD`:     "alignment",
	`IP_VS_VERSION_CODE`:      "reported by the kernel, compared with nothing",
	`IP_VS_STATE_NONE`:        "no daemon has it",
	`IP_VS_SVC_F_HASHED`:      "the kernel's own, ignored when read, never set",
	`IP_VS_SVC_F_SCHED_SH_.*`: "other names for SCHED1 and SCHED2",
	`IP_VS_CONN_F_(SYNC|HASHED|NOOUTPUT|INACTIVE|OUT_SEQ|IN_SEQ|SEQ_MASK|NO_CPORT|TEMPLATE|ONE_PACKET|NFCT|BACKUP_MASK|BACKUP_UPD_MASK|DEST_MASK)`: "flags of connections, which only sync messages carry",
	`IP_VS_PEDATA_MAXLEN`: "of connections and sync messages",
	`IP_VS_DEST_F_.*`:     "inside the kernel only",
}

// TestHeader has a decision for every constant of the kernel's header: used here
// with its value, a value of package ipvs, or unused for a reason.
func TestHeader(t *testing.T) {
	header := headerConstants(t)
	if len(header) < 150 {
		t.Fatalf("%d constants read from the header: the parser misses some", len(header))
	}
	own := ownConstants(t)
	for name, value := range header {
		if mine, ok := own[name]; ok {
			if value != "" && value != mine {
				t.Errorf("%s is %s, here %s", name, value, mine)
			}
			delete(own, name)
			continue
		}
		if mine, ok := inVocabulary[name]; ok {
			if value != strconv.FormatInt(mine, 10) {
				t.Errorf("%s is %s, in package ipvs %d", name, value, mine)
			}
			continue
		}
		if reason(name) == "" {
			t.Errorf("%s is neither used nor listed with a reason", name)
		}
	}
	for name := range own {
		t.Errorf("%s is not in the header", name)
	}
}

func reason(name string) string {
	for pattern, why := range unused {
		if regexp.MustCompile(`^(` + pattern + `)$`).MatchString(name) {
			return why
		}
	}
	return ""
}

var (
	define     = regexp.MustCompile(`^#define\s+(_*IP_?VS_\w+)\s+(.*)$`)
	enumerator = regexp.MustCompile(`^\s+(_*IP_?VS_\w+)(?:\s*=\s*(\d+))?,`)
	comment    = regexp.MustCompile(`(?s)/\*.*?\*/`)
	shift      = regexp.MustCompile(`^\(1 << (\d+)\)$`)
)

// headerConstants returns the header's constants with their values, which are empty
// for those that are no plain numbers or strings.
func headerConstants(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/ip_vs.h")
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]string{}
	next := int64(0)
	for _, line := range strings.Split(comment.ReplaceAllString(string(text), ""), "\n") {
		line = strings.TrimRight(line, " \t")
		if strings.HasPrefix(line, "enum") {
			next = 0
		}
		if m := define.FindStringSubmatch(line); m != nil {
			constants[m[1]] = number(m[2])
		} else if m := enumerator.FindStringSubmatch(line); m != nil {
			if m[2] != "" {
				next, _ = strconv.ParseInt(m[2], 10, 64) // digits only
			}
			constants[m[1]] = strconv.FormatInt(next, 10)
			next++
		}
	}
	return constants
}

// number returns the decimal form of a C or Go number, a string literal as it is,
// and "" for an expression.
func number(text string) string {
	if m := shift.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1]) // digits only
		return strconv.Itoa(1 << n)
	}
	text = strings.Trim(text, "()")
	if strings.HasPrefix(text, `"`) {
		return text
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// ownConstants returns the constants of constants.go by their names in the header,
// and fails for one that no other file uses.
func ownConstants(t *testing.T) map[string]string {
	t.Helper()
	files, err := fs.Glob(sources, "*.go")
	if err != nil {
		t.Fatal(err)
	}
	constants, idents, used := map[string]string{}, map[string]string{}, map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := sources.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if name == "constants.go" {
					kernelName := strings.TrimSpace(n.Comment.Text())
					constants[kernelName] = number(n.Values[0].(*ast.BasicLit).Value)
					idents[kernelName] = n.Names[0].Name
				}
			case *ast.Ident:
				used[n.Name] = used[n.Name] || name != "constants.go"
			}
			return true
		})
	}
	for kernelName, ident := range idents {
		if !used[ident] {
			t.Errorf("%s (%s) is not used", ident, kernelName)
		}
	}
	return constants
}
