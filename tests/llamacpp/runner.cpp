// llama.cpp at work for the bench: prompts and greedy tokens, timed here; and its own quantization.
//
//   runner quantize IN OUT TYPE HEAD          a GGUF file in Q4_0, IQ4_NL or Q4_K_M; HEAD "f16" or "default"
//   runner serve MODEL THREADS CONTEXT [LORA] answers each line "NEW ID ID ..." of the standard input with a line of JSON:
//                                             seconds of the prompt and of NEW tokens behind it, these tokens, peak bytes
//
// Weights are repacked and threads wait as llama.cpp's defaults have it.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "ggml.h"
#include "llama.h"

static void fail(const std::string & what) {
    fprintf(stderr, "runner: %s\n", what.c_str());
    exit(1);
}

static void quiet(ggml_log_level level, const char * text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static int64_t peak_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.rfind("VmHWM:", 0) == 0) return 1024 * atoll(line.c_str() + 6);
    return 0;
}

static void quantize(char ** arguments) {
    const std::string type = arguments[2], head = arguments[3];
    llama_model_quantize_params parameters = llama_model_quantize_default_params();
    if (type == "Q4_0") parameters.ftype = LLAMA_FTYPE_MOSTLY_Q4_0;
    else if (type == "IQ4_NL") parameters.ftype = LLAMA_FTYPE_MOSTLY_IQ4_NL;
    else if (type == "Q4_K_M") parameters.ftype = LLAMA_FTYPE_MOSTLY_Q4_K_M;
    else fail("no such type: " + type);
    if (head == "f16") parameters.output_tensor_type = GGML_TYPE_F16;
    else if (head != "default") fail("no such head: " + head);
    if (llama_model_quantize(arguments[0], arguments[1], &parameters)) fail("llama_model_quantize");
}

static int likeliest(llama_context * context, int vocabulary) {
    const float * logits = llama_get_logits_ith(context, -1);
    int best = 0;
    for (int i = 1; i < vocabulary; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static void serve(int count, char ** arguments) {
    llama_model * model = llama_model_load_from_file(arguments[0], llama_model_default_params());
    if (!model) fail(std::string("llama.cpp does not load ") + arguments[0]);
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_context_params parameters = llama_context_default_params();
    parameters.n_ctx = atoi(arguments[2]);
    parameters.n_batch = parameters.n_ubatch = 512;
    parameters.n_threads = parameters.n_threads_batch = atoi(arguments[1]);
    llama_context * context = llama_init_from_model(model, parameters);
    if (!context) fail("no context");
    if (count > 3) {
        llama_adapter_lora * adapter = llama_adapter_lora_init(model, arguments[3]);
        if (!adapter) fail(std::string("llama.cpp does not load ") + arguments[3]);
        float scale = 1;
        llama_set_adapters_lora(context, &adapter, 1, &scale);
    }
    std::cout << "{\"system\": \"" << llama_print_system_info() << "\"}" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        int wanted = 0;
        words >> wanted;
        std::vector<llama_token> prompt, written;
        for (llama_token token; words >> token;) prompt.push_back(token);
        llama_memory_clear(llama_get_memory(context), true);
        const double begun = now();
        if (llama_decode(context, llama_batch_get_one(prompt.data(), prompt.size()))) fail("llama_decode");
        llama_token next = likeliest(context, vocabulary);
        const double read = now();
        for (int i = 0; i < wanted; i++) {
            written.push_back(next);
            if (llama_decode(context, llama_batch_get_one(&next, 1))) fail("llama_decode");
            next = likeliest(context, vocabulary);
        }
        const double ended = now();
        std::cout << "{\"prompt_s\": " << read - begun << ", \"tokens_s\": " << ended - read << ", \"peak_bytes\": "
                  << peak_bytes() << ", \"tokens\": [";
        for (size_t i = 0; i < written.size(); i++) std::cout << (i ? ", " : "") << written[i];
        std::cout << "]}" << std::endl;
    }
}

int main(int count, char ** arguments) {
    llama_log_set(quiet, nullptr);
    llama_backend_init();
    std::cout.precision(9);
    const std::string mode = count > 1 ? arguments[1] : "";
    if (mode == "quantize" && count == 6) quantize(arguments + 2);
    else if (mode == "serve" && count >= 5) serve(count - 2, arguments + 2);
    else fail("quantize IN OUT TYPE HEAD | serve MODEL THREADS CONTEXT [LORA]");
}
