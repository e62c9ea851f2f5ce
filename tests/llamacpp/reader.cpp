// llama.cpp by its own library: logits of given tokens, tokens of given texts, and ggml's formats.
//
//   reader logits MODEL TOKENS OUT [LORA SCALE]   int32 tokens -> float32 [T, V], the cache in float32
//   reader tokens MODEL TEXTS OUT                 texts that end in a zero byte -> a line of ids each
//   reader template MODEL                         the chat template in the file
//   reader blocks TYPE ROW IN OUT                 float32 rows -> ggml's blocks (OUT) and what they stand for (OUT.f32)

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "ggml.h"
#include "llama.h"

static void fail(const std::string & what) {
    fprintf(stderr, "reader: %s\n", what.c_str());
    exit(1);
}

static std::vector<char> read(const char * path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(std::string("cannot read ") + path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

static void quiet(ggml_log_level level, const char * text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static llama_model * load(const char * path, bool vocabulary_only) {
    llama_model_params parameters = llama_model_default_params();
    parameters.vocab_only = vocabulary_only;
    parameters.use_extra_bufts = false;  // weights in the order of the file
    llama_model * model = llama_model_load_from_file(path, parameters);
    if (!model) fail(std::string("llama.cpp does not load ") + path);
    return model;
}

static void logits(int count, char ** arguments) {
    llama_model * model = load(arguments[0], false);
    const std::vector<char> bytes = read(arguments[1]);
    const int length = bytes.size() / sizeof(int32_t), vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_context_params parameters = llama_context_default_params();
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = length + 8;
    parameters.n_outputs_max = length;
    parameters.n_threads = parameters.n_threads_batch = 1;
    parameters.type_k = parameters.type_v = GGML_TYPE_F32;
    parameters.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, parameters);
    if (!context) fail("no context");
    if (count > 4) {
        llama_adapter_lora * adapter = llama_adapter_lora_init(model, arguments[3]);
        if (!adapter) fail(std::string("llama.cpp does not load ") + arguments[3]);
        float scale = atof(arguments[4]);
        llama_set_adapters_lora(context, &adapter, 1, &scale);
    }
    llama_batch batch = llama_batch_init(length, 0, 1);
    batch.n_tokens = length;
    for (int i = 0; i < length; i++) {
        batch.token[i] = reinterpret_cast<const int32_t *>(bytes.data())[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = true;
    }
    if (llama_decode(context, batch)) fail("llama_decode");
    std::ofstream out(arguments[2], std::ios::binary);
    for (int i = 0; i < length; i++)
        out.write(reinterpret_cast<const char *>(llama_get_logits_ith(context, i)), vocabulary * sizeof(float));
}

static void tokens(char ** arguments) {
    const llama_vocab * vocabulary = llama_model_get_vocab(load(arguments[0], true));
    const std::vector<char> texts = read(arguments[1]);
    std::ofstream out(arguments[2]);
    for (size_t start = 0, end; start < texts.size(); start = end + 1) {
        for (end = start; texts[end]; end++) {}
        std::vector<llama_token> ids(end - start + 16);
        const int count = llama_tokenize(vocabulary, texts.data() + start, end - start, ids.data(), ids.size(), true, false);
        if (count < 0) fail("llama_tokenize");
        for (int i = 0; i < count; i++) out << ids[i] << ' ';
        out << '\n';
    }
}

static void blocks(char ** arguments) {
    const ggml_type type = static_cast<ggml_type>(atoi(arguments[0]));
    const int64_t row = atoll(arguments[1]);
    const std::vector<char> in = read(arguments[2]);
    const int64_t rows = in.size() / sizeof(float) / row;
    std::vector<char> packed(rows * ggml_row_size(type, row));
    std::vector<float> stood_for(rows * row);
    ggml_quantize_chunk(type, reinterpret_cast<const float *>(in.data()), packed.data(), 0, rows, row, nullptr);
    ggml_get_type_traits(type)->to_float(packed.data(), stood_for.data(), rows * row);
    std::ofstream(arguments[3], std::ios::binary).write(packed.data(), packed.size());
    std::ofstream(std::string(arguments[3]) + ".f32", std::ios::binary)
        .write(reinterpret_cast<const char *>(stood_for.data()), stood_for.size() * sizeof(float));
}

int main(int count, char ** arguments) {
    llama_log_set(quiet, nullptr);
    llama_backend_init();
    const std::string mode = count > 2 ? arguments[1] : "";
    if (mode == "logits" && count >= 5) {
        logits(count - 2, arguments + 2);
    } else if (mode == "tokens" && count == 5) {
        tokens(arguments + 2);
    } else if (mode == "template" && count == 3) {
        const char * text = llama_model_chat_template(load(arguments[2], true), nullptr);
        fputs(text ? text : "", stdout);
    } else if (mode == "blocks" && count == 6) {
        blocks(arguments + 2);
    } else {
        fail("logits MODEL TOKENS OUT [LORA SCALE] | tokens MODEL TEXTS OUT | template MODEL | blocks TYPE ROW IN OUT");
    }
}
